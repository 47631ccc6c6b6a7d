package contract_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// TestPlatformCommands proves that ParsePlatformCommands returns any text unchanged.
func TestPlatformCommands(t *testing.T) {
	want := contract.PlatformCommands{
		{Platform: contract.Platform{Architecture: "amd64"}, Argv: []string{"/app", "", "two words", "\"'\\", "<&>", "$(A) $$", "two\nlines", "ü\u2028"}},
		{Platform: contract.Platform{Architecture: "arm", Variant: "v7"}, Argv: []string{"/app"}},
		{Platform: contract.Platform{Architecture: "arm64"}},
		{Platform: contract.Platform{Architecture: "s390x"}, Missing: true},
	}
	got, err := contract.ParsePlatformCommands(want.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ParsePlatformCommands(Marshal()) (-want +got):\n%s", diff)
	}
	for _, text := range []string{"", "{}", "null", "[1]", `[{"architecture":1}]`, `[{"architecture":"arm"},{"architecture":"arm64"`, `[{"architecture":"arm"}]]`} {
		if _, err := contract.ParsePlatformCommands(text); err == nil {
			t.Errorf("ParsePlatformCommands(%q) has no error", text)
		}
	}
}

// TestBest proves that a node prefers the same platform of an image as containerd does (containerd/platforms, compare_test.go).
func TestBest(t *testing.T) {
	type platforms []contract.Platform
	cases := map[string]struct {
		node contract.Platform
		all  platforms
		want int
	}{
		"the same":                             {contract.Platform{Architecture: "amd64"}, platforms{{Architecture: "arm64"}, {Architecture: "amd64"}}, 1},
		"none":                                 {contract.Platform{Architecture: "s390x"}, platforms{{Architecture: "arm64"}, {Architecture: "amd64"}}, -1},
		"nothing":                              {contract.Platform{Architecture: "amd64"}, nil, -1},
		"the first of two":                     {contract.Platform{Architecture: "amd64"}, platforms{{Architecture: "amd64"}, {Architecture: "amd64"}}, 0},
		"another spelling":                     {contract.Platform{Architecture: "amd64"}, platforms{{Architecture: "X86_64", Variant: "v1"}}, 0},
		"amd64/v2 is not for every node":       {contract.Platform{Architecture: "amd64"}, platforms{{Architecture: "amd64", Variant: "v2"}, {Architecture: "amd64"}}, 1},
		"32 bits if there are no 64":           {contract.Platform{Architecture: "amd64"}, platforms{{Architecture: "386"}}, 0},
		"64 bits before 32":                    {contract.Platform{Architecture: "amd64"}, platforms{{Architecture: "386"}, {Architecture: "amd64"}}, 1},
		"64 bits not on 32":                    {contract.Platform{Architecture: "386"}, platforms{{Architecture: "amd64"}}, -1},
		"arm64/v8":                             {contract.Platform{Architecture: "arm64"}, platforms{{Architecture: "arm64", Variant: "v8"}}, 0},
		"aarch64":                              {contract.Platform{Architecture: "arm64"}, platforms{{Architecture: "aarch64"}}, 0},
		"arm64/v9 is not for every node":       {contract.Platform{Architecture: "arm64"}, platforms{{Architecture: "arm64", Variant: "v9"}}, -1},
		"the newest arm on arm64":              {contract.Platform{Architecture: "arm64"}, platforms{{Architecture: "arm", Variant: "v6"}, {Architecture: "arm", Variant: "v7"}}, 1},
		"arm64 before arm":                     {contract.Platform{Architecture: "arm64"}, platforms{{Architecture: "arm", Variant: "v7"}, {Architecture: "arm64"}}, 1},
		"the same variant":                     {contract.Platform{Architecture: "arm", Variant: "v6"}, platforms{{Architecture: "arm", Variant: "v5"}, {Architecture: "arm", Variant: "v6"}, {Architecture: "arm", Variant: "v7"}}, 1},
		"an older variant":                     {contract.Platform{Architecture: "arm", Variant: "v7"}, platforms{{Architecture: "arm", Variant: "v5"}, {Architecture: "arm", Variant: "v6"}}, 1},
		"no newer variant":                     {contract.Platform{Architecture: "arm", Variant: "v6"}, platforms{{Architecture: "arm", Variant: "v7"}}, -1},
		"arm without a variant is v7":          {contract.Platform{Architecture: "arm", Variant: "v7"}, platforms{{Architecture: "arm"}}, 0},
		"v6 doesn't run arm without a variant": {contract.Platform{Architecture: "arm", Variant: "v6"}, platforms{{Architecture: "arm"}}, -1},
		"armhf":                                {contract.Platform{Architecture: "arm", Variant: "v7"}, platforms{{Architecture: "armhf"}}, 0},
		"a variant without its letter":         {contract.Platform{Architecture: "arm", Variant: "v8"}, platforms{{Architecture: "arm", Variant: "8"}}, 0},
		"an unknown variant of the node":       {contract.Platform{Architecture: "arm", Variant: "x"}, platforms{{Architecture: "arm", Variant: "v5"}}, -1},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := c.node.Best(c.all); got != c.want {
				t.Errorf("%+v prefers number %d of %+v, want %d", c.node, got, c.all, c.want)
			}
		})
	}
}
