package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/taskflow/taskflow-operator/internal/oci"
)

// TestIsStatic proves that it distinguishes programs with and without a dynamic linker, and that a file which is no program is an error.
func TestIsStatic(t *testing.T) {
	for name, test := range map[string]struct {
		program []byte
		want    bool
		wantErr bool
	}{
		"static":    {program: program(t, elf.PT_LOAD, elf.PT_GNU_STACK), want: true},
		"dynamic":   {program: program(t, elf.PT_LOAD, elf.PT_INTERP), want: false},
		"a script":  {program: []byte("#!/bin/sh\n"), wantErr: true},
		"no header": {program: program(t)[:20], wantErr: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := isStatic(test.program)
			if got != test.want || (err != nil) != test.wantErr {
				t.Errorf("got %t and error %v, want %t and an error: %t", got, err, test.want, test.wantErr)
			}
		})
	}
}

// program returns an ELF file of a header and these program headers.
func program(t *testing.T, types ...elf.ProgType) []byte {
	t.Helper()
	header := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT),
		Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: uint16(len(types)), Shentsize: 64,
	}
	copy(header.Ident[:], elf.ELFMAG)
	header.Ident[elf.EI_CLASS], header.Ident[elf.EI_DATA], header.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	var file bytes.Buffer
	parts := []any{header}
	for _, kind := range types {
		parts = append(parts, elf.Prog64{Type: uint32(kind)})
	}
	for _, part := range parts {
		if err := binary.Write(&file, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	return file.Bytes()
}

// TestBusyboxFiles proves that the test image has a shell and the tools that the tests use, and that no path is there twice, so that the
// files can be an image.
func TestBusyboxFiles(t *testing.T) {
	dir, err := busyboxDir()
	if err != nil {
		t.Fatal(err)
	}
	busybox, err := firstStatic(busyboxes(dir))
	if err != nil {
		t.Fatal(err)
	}
	if busybox == "" {
		t.Skip("there is no static busybox: `make up` gets one")
	}
	files, err := busyboxFiles(t.Context(), busybox)
	if err != nil {
		t.Fatal(err)
	}
	links := map[string]string{}
	for _, file := range files {
		links[file.Path] = file.Link
	}
	for _, tool := range []string{"sh", "sleep", "cat", "wget"} {
		if links["bin/"+tool] != "busybox" {
			t.Errorf("%s links to %q, want busybox", tool, links["bin/"+tool])
		}
	}
	if link, ok := links["bin/busybox"]; !ok || link != "" {
		t.Errorf("busybox itself: got a link to %q (there: %t), want a file", link, ok)
	}
	if _, err := oci.Image(oci.HostPlatform(), files, v1.Config{}); err != nil {
		t.Error(err)
	}
}
