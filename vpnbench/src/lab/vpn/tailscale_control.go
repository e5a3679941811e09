// vpnbench-tailscale-lab introduces the hosts of a lab run to each other: Tailscale's own test
// coordination server on an address of the caller's, and a STUN server, without any relay.
package main

import (
	"context"
	"flag"
	"log"
	"net/http"
	"net/netip"

	"tailscale.com/net/stunserver"
	"tailscale.com/tailcfg"
	"tailscale.com/tstest/integration/testcontrol"
)

func main() {
	listen := flag.String("listen", "", "address and port to listen on")
	stun := flag.String("stun", "", "address and port of its STUN server")
	flag.Parse()
	if *listen == "" {
		log.Fatal("-listen ADDRESS:PORT is missing")
	}
	address, err := netip.ParseAddrPort(*stun)
	if err != nil {
		log.Fatalf("-stun ADDRESS:PORT: %v", err)
	}
	answers := stunserver.New(context.Background())
	if err := answers.Listen(*stun); err != nil {
		log.Fatal(err)
	}
	go func() { log.Fatal(answers.Serve()) }()
	// Without a map, the public relays of the real service would be offered; without a server in it that
	// answers, tailscaled takes its socket for broken and opens it anew every half minute.
	region := &tailcfg.DERPRegion{
		RegionID:   900,
		RegionCode: "lab",
		RegionName: "lab",
		Nodes: []*tailcfg.DERPNode{{
			Name:     "900a",
			RegionID: 900,
			HostName: address.Addr().String(),
			IPv4:     address.Addr().String(),
			IPv6:     "none",
			STUNPort: int(address.Port()),
			STUNOnly: true,
		}},
	}
	control := &testcontrol.Server{
		DERPMap:          &tailcfg.DERPMap{Regions: map[int]*tailcfg.DERPRegion{900: region}},
		DNSConfig:        &tailcfg.DNSConfig{},
		ExplicitBaseURL:  "http://" + *listen,
		AllNodesSameUser: true,
		AllOnline:        true,
	}
	log.Printf("listening on %s", *listen)
	log.Fatal(http.ListenAndServe(*listen, control))
}
