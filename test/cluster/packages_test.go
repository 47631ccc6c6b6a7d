package main

import (
	"debug/elf"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestMissingPackages proves that a package counts as installed if its program is found, and that all missing ones are listed.
func TestMissingPackages(t *testing.T) {
	var all, names []string
	for _, p := range packages {
		all = append(all, p.program)
		names = append(names, p.name)
	}
	for name, test := range map[string]struct{ programs, want []string }{
		"all there":      {programs: all},
		"none":           {want: names},
		"some":           {programs: slices.Concat(all[1:3], all[4:]), want: []string{names[0], names[3]}},
		"other programs": {programs: []string{"crun", "ptp", "/usr/sbin"}, want: names},
	} {
		t.Run(name, func(t *testing.T) {
			got := missingPackages(func(program string) bool { return slices.Contains(test.programs, program) })
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("missing (-want +got):\n%s", diff)
			}
		})
	}
}

// TestFirstStatic proves that a busybox with shared libraries, such as that in Debian's package busybox, is ignored, and that the result is
// empty if there is no other.
func TestFirstStatic(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	static, dynamic := file("static", program(t, elf.PT_LOAD)), file("dynamic", program(t, elf.PT_INTERP))
	second, none, noProgram := file("second", program(t, elf.PT_LOAD)), filepath.Join(dir, "none"), file("script", []byte("#!/bin/sh\n"))
	for name, test := range map[string]struct {
		programs []string
		want     string
		wantErr  bool
	}{
		"static":               {programs: []string{static, second}, want: static},
		"the first is dynamic": {programs: []string{dynamic, static}, want: static},
		"the first is missing": {programs: []string{none, static}, want: static},
		"dynamic":              {programs: []string{dynamic, none}},
		"none":                 {programs: []string{none}},
		"no program":           {programs: []string{noProgram, static}, wantErr: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := firstStatic(test.programs)
			if (err != nil) != test.wantErr {
				t.Fatalf("got error %v, want one: %t", err, test.wantErr)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("program (-want +got):\n%s", diff)
			}
		})
	}
}
