//go:build linux

package agent

import (
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// A step whose image has different commands on different platforms runs the command for the node, or fails with a sentence.
func TestPlatformArgv(t *testing.T) {
	commands := contract.PlatformCommands{
		{Platform: contract.Platform{Architecture: "arm64"}, Argv: []string{"/arm", "fixed"}},
		{Platform: contract.Platform{Architecture: "amd64"}, Argv: []string{"/amd", "fixed"}},
		{Platform: contract.Platform{Architecture: "s390x"}},
		{Platform: contract.Platform{Architecture: "ppc64le"}, Missing: true},
	}.Marshal()
	cases := map[string]struct {
		args    []string
		node    string
		want    []string
		refused string
	}{
		"the node's":       {args: []string{commands}, node: "amd64", want: []string{"/amd", "fixed"}},
		"with args":        {args: []string{commands, "", "a b"}, node: "arm64", want: []string{"/arm", "fixed", "", "a b"}},
		"only args":        {args: []string{commands, "/app"}, node: "s390x", want: []string{"/app"}},
		"no command":       {args: []string{commands}, node: "s390x", refused: "the image has neither ENTRYPOINT nor CMD on this platform: set command"},
		"another platform": {args: []string{commands}, node: "riscv64", refused: "the image isn't made for linux/riscv64: set an image that is, or a nodeSelector on kubernetes.io/arch"},
		"unknown": {args: []string{commands, "/app"}, node: "ppc64le", refused: "the image's command on linux/ppc64le is unknown, because its registry lists the platform " +
			"but did not have it when the Pod was created: set command, or a nodeSelector on kubernetes.io/arch"},
		"no commands": {node: "amd64", refused: "platform takes the commands of the platforms as its first argument"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := platformArgv(c.args, contract.Platform{Architecture: c.node})
			var refused string
			if err != nil {
				refused = err.Error()
			}
			if diff := cmp.Diff(c.refused, refused); diff != "" {
				t.Errorf("refusal (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("argv (-want +got):\n%s", diff)
			}
		})
	}
}

// Machines of the kernel's 32-bit ARM port have a variant, and no others.
func TestVariantOf(t *testing.T) {
	for machine, want := range map[string]string{
		"armv7l": "v7", "armv6l": "v6", "armv5tel": "v5", "armv8l": "v8", "aarch64": "v8", "x86_64": "", "armv": "", "": "",
	} {
		if diff := cmp.Diff(want, variantOf(machine)); diff != "" {
			t.Errorf("variantOf(%q) (-want +got):\n%s", machine, diff)
		}
	}
	if got := armVariant(); runtime.GOARCH != "arm" && got != "" {
		t.Errorf("armVariant() = %q on %s", got, runtime.GOARCH)
	}
}
