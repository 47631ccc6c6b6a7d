package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestForeignRoute proves that the cluster's own routes are distinguished from others, as ip prints them.
func TestForeignRoute(t *testing.T) {
	const ours = `198.18.0.0/30 dev taskflow0 proto kernel scope link src 198.18.0.2 
198.18.0.0/15 via 198.18.0.1 dev taskflow0 
local 198.18.0.2 dev taskflow0 table local proto kernel scope host src 198.18.0.2 
broadcast 198.18.0.3 dev taskflow0 table local proto kernel scope link src 198.18.0.2 
`
	for name, test := range map[string]struct{ routes, want string }{
		"none":              {"", ""},
		"ours":              {ours, ""},
		"ours at the end":   {"198.18.0.0/15 via 198.18.0.1 dev taskflow0", ""},
		"a proxy's":         {"198.18.0.0/16 dev tun0 scope link \n", "198.18.0.0/16 dev tun0 scope link"},
		"an address":        {ours + "local 198.19.0.7 dev eth0 table local proto kernel scope host src 198.19.0.7 \n", "local 198.19.0.7 dev eth0 table local proto kernel scope host src 198.19.0.7"},
		"of a similar name": {"198.18.5.0/24 dev taskflow01 scope link \n", "198.18.5.0/24 dev taskflow01 scope link"},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, foreignRoute(test.routes)); diff != "" {
				t.Errorf("route (-want +got):\n%s", diff)
			}
		})
	}
}
