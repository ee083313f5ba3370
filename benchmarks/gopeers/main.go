// The Go programs that nitroproxy is compared with, each as its documentation shows it: httputil.ReverseProxy as
// gateway and as enclave, elazarl/goproxy as relay. Connections are kept alive, nothing is logged.
//
//	peers gateway PORT ORIGIN      TCP to the UNIX socket ORIGIN
//	peers enclave PATH RELAY PORT CA   the UNIX socket PATH to https://localhost:PORT, through the relay at RELAY
//	peers relay PATH               CONNECT at the UNIX socket PATH
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"time"

	"github.com/elazarl/goproxy"
)

// over makes a transport whose connections all lead to the UNIX socket path.
func over(path string) *http.Transport {
	return &http.Transport{
		MaxIdleConnsPerHost: 4096,
		IdleConnTimeout:     time.Hour,
		DisableCompression:  true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}
}

func forward(transport http.RoundTripper, to *url.URL) http.Handler {
	return &httputil.ReverseProxy{Transport: transport, Rewrite: func(request *httputil.ProxyRequest) { request.SetURL(to) }}
}

func enclave(relay, port, ca string) http.Handler {
	pem, err := os.ReadFile(ca)
	if err != nil {
		log.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	transport := over(relay)
	transport.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: "relay"})
	transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}
	return forward(transport, &url.URL{Scheme: "https", Host: "localhost:" + port})
}

func main() {
	var handler http.Handler
	network, address := "unix", os.Args[2]
	switch os.Args[1] {
	case "gateway":
		network, address = "tcp", "127.0.0.1:"+os.Args[2]
		handler = forward(over(os.Args[3]), &url.URL{Scheme: "http", Host: "origin"})
	case "enclave":
		handler = enclave(os.Args[3], os.Args[4], os.Args[5])
	default:
		handler = goproxy.NewProxyHttpServer()
	}
	listener, err := net.Listen(network, address)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(listener, handler))
}
