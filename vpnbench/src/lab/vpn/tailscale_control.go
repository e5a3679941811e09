// vpnbench-tailscale-control introduces the hosts of a lab run to each other: Tailscale's own test
// coordination server on an address of the caller's, without any relay.
package main

import (
	"flag"
	"log"
	"net/http"

	"tailscale.com/tailcfg"
	"tailscale.com/tstest/integration/testcontrol"
)

func main() {
	listen := flag.String("listen", "", "address and port to listen on")
	flag.Parse()
	if *listen == "" {
		log.Fatal("-listen ADDRESS:PORT is missing")
	}
	control := &testcontrol.Server{
		// An empty map: without it, the public relays of the real service would be offered.
		DERPMap:          &tailcfg.DERPMap{Regions: map[int]*tailcfg.DERPRegion{}},
		DNSConfig:        &tailcfg.DNSConfig{},
		ExplicitBaseURL:  "http://" + *listen,
		AllNodesSameUser: true,
		AllOnline:        true,
	}
	log.Printf("listening on %s", *listen)
	log.Fatal(http.ListenAndServe(*listen, control))
}
