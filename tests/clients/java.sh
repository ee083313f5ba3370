#!/bin/sh
keytool -importcert -noprompt -file "$CA_FILE" -keystore trust.p12 -storepass changeit
java -Djavax.net.ssl.trustStore=trust.p12 -Djavax.net.ssl.trustStorePassword=changeit "$EXAMPLES/JavaHttpClient.java"
