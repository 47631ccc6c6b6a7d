// Package oci builds container images from files, and pushes them, without Docker. The digest depends only on the files and the
// configuration.
package oci

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// File is a file of an image. Root owns it, and its modification time is the start of the epoch.
type File struct {
	// Path has no leading slash. A trailing slash makes a directory.
	Path string
	// Mode holds the permission, setuid, setgid and sticky bits of chmod(2).
	Mode int64
	// Content is for a regular file.
	Content []byte
	// Link is the target of a symbolic link.
	Link string
}

// HostPlatform returns Linux on this machine's architecture.
func HostPlatform() v1.Platform {
	return v1.Platform{OS: "linux", Architecture: runtime.GOARCH}
}

// Image returns an image with one layer.
func Image(platform v1.Platform, files []File, config v1.Config) (v1.Image, error) {
	content, err := archive(files)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(
		func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
		tarball.WithMediaType(types.OCILayer),
		tarball.WithCompressedCaching) // otherwise it is compressed for the digest, and again for the push
	if err != nil {
		return nil, err
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err := mutate.AppendLayers(base, layer)
	if err != nil {
		return nil, err
	}
	configFile, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	configFile = configFile.DeepCopy()
	configFile.OS, configFile.Architecture, configFile.Variant = platform.OS, platform.Architecture, platform.Variant
	configFile.Config = config
	return mutate.ConfigFile(image, configFile)
}

// Index returns an index of images for several platforms. Each client pulls the image of its own platform.
func Index(images ...v1.Image) (v1.ImageIndex, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, image := range images {
		config, err := image.ConfigFile()
		if err != nil {
			return nil, err
		}
		platform := &v1.Platform{OS: config.OS, Architecture: config.Architecture, Variant: config.Variant}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: platform}})
	}
	return index, nil
}

// archive returns the files as a tar archive, sorted by path.
func archive(files []File) ([]byte, error) {
	files = slices.SortedFunc(slices.Values(files), func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	var content bytes.Buffer
	writer := tar.NewWriter(&content)
	for i, file := range files {
		if i > 0 && file.Path == files[i-1].Path {
			// Otherwise the caller's order would decide which one is unpacked last.
			return nil, fmt.Errorf("adding %s: the path exists twice", file.Path)
		}
		header := &tar.Header{Name: file.Path, Mode: file.Mode, Format: tar.FormatPAX}
		switch {
		case file.Link != "":
			header.Typeflag, header.Linkname, header.Mode = tar.TypeSymlink, file.Link, 0o777
		case strings.HasSuffix(file.Path, "/"):
			header.Typeflag = tar.TypeDir
		default:
			header.Typeflag, header.Size = tar.TypeReg, int64(len(file.Content))
		}
		if err := writer.WriteHeader(header); err != nil {
			return nil, fmt.Errorf("adding %s: %w", file.Path, err)
		}
		if header.Typeflag == tar.TypeReg {
			if _, err := writer.Write(file.Content); err != nil {
				return nil, fmt.Errorf("adding %s: %w", file.Path, err)
			}
		}
	}
	err := writer.Close()
	return content.Bytes(), err
}

// PlainHTTP allows Push to use a registry without TLS.
var PlainHTTP = name.Insecure

// Push pushes an image or index to ref, such as "registry.example.com/taskflow/agent:v1", with the credentials of the Docker configuration.
func Push(ctx context.Context, ref string, content remote.Taggable, options ...name.Option) error {
	parsed, err := name.ParseReference(ref, options...)
	if err == nil {
		err = remote.Push(parsed, content, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain))
	}
	if err != nil {
		return fmt.Errorf("pushing %s: %w", ref, err)
	}
	return nil
}
