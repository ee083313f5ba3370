"""Makes ``twistd --reactor=nitroproxy`` known."""

from twisted.application.reactors import Reactor

eager = Reactor("nitroproxy", "nitroproxy.daemon.reactor", "epoll, asked only when a write did not fit; for proxies")
