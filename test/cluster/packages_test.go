package main

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestMissingPackages proves that a package is there where its file is, with /usr merged or not, and that all that
// are missing are named.
func TestMissingPackages(t *testing.T) {
	var all, names, unmerged []string
	for _, p := range packages {
		all = append(all, p.file)
		names = append(names, p.name)
		unmerged = append(unmerged, p.file[len("/usr"):])
	}
	for name, test := range map[string]struct{ files, want []string }{
		"all there":       {files: all},
		"/usr not merged": {files: unmerged},
		"none":            {want: names},
		"some":            {files: slices.Concat(all[1:3], unmerged[4:]), want: []string{names[0], names[3]}},
		"other files":     {files: []string{"/usr/bin/runc", "/runc", "/usr/sbin"}, want: names},
	} {
		t.Run(name, func(t *testing.T) {
			got := missingPackages(func(file string) bool { return slices.Contains(test.files, file) })
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("missing (-want +got):\n%s", diff)
			}
		})
	}
}
