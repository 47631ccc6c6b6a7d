package entrypoint

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"

	"github.com/taskflow/taskflow-operator/contract"
)

// image is what is known of an image: the commands of its platforms, those of linux only.
type image struct {
	// index says that a container runtime picks one of them, by the node's platform. Else there is one at most.
	index     bool
	platforms []platformCommand
}

type platformCommand struct {
	contract.Platform
	command Command
}

const (
	// maxPlatforms bounds the requests that one index can cause. Those of the official images have eight.
	maxPlatforms = 64
	// maxDepth is how deep indexes may be nested.
	maxDepth = 3
	// parallel is how many platforms of an index are read at a time.
	parallel = 4
	// maxWords bounds what is kept in mind of one image, in bytes. The longest argument that Linux takes is twice as long.
	maxWords = 64 << 10
)

var (
	errUnreadable  = errors.New("not an image")
	errWrongDigest = errors.New("the content isn't that of the digest")
)

// session reads from a repository, with one credential.
type session struct {
	client     *http.Client
	repository name.Repository
}

// newSession asks the registry how it wants to be shown a credential, and gets a token if that is how.
func newSession(ctx context.Context, repository name.Repository, auth authn.Authenticator, t http.RoundTripper) (*session, error) {
	authorised, err := transport.NewWithContext(ctx, repository.Registry, auth, t, []string{repository.Scope(transport.PullScope)})
	if err != nil {
		return nil, err
	}
	return &session{&http.Client{Transport: authorised}, repository}, nil
}

// digest asks for that of a tag, or whether there is what has this digest: with a HEAD, which is all that registries count least; or
// with a GET, for those that know no HEAD.
func (s *session) digest(ctx context.Context, identifier string) (v1.Hash, error) {
	want, _ := v1.NewHash(identifier) // a tag is none
	response, err := s.do(ctx, http.MethodHead, "manifests", identifier)
	var refused *transport.Error
	switch {
	case err == nil:
		_ = response.Body.Close()
		if want != (v1.Hash{}) {
			return want, nil // whatever the registry says of it
		}
		if digest, err := v1.NewHash(response.Header.Get("Docker-Content-Digest")); err == nil {
			return digest, nil
		}
	case errors.As(err, &refused) && isHeadless(refused.StatusCode):
	default:
		return v1.Hash{}, err
	}
	content, _, err := s.read(ctx, "manifests", identifier, want)
	if err != nil || want != (v1.Hash{}) {
		return want, err
	}
	digest, _, err := v1.SHA256(bytes.NewReader(content))
	return digest, err
}

// isHeadless is for the answers of registries, and of proxies before them, that know no HEAD.
func isHeadless(status int) bool {
	switch status {
	case http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return true
	}
	return false
}

// read returns content, which is that of the digest, unless that is empty.
func (s *session) read(ctx context.Context, kind, identifier string, want v1.Hash) ([]byte, types.MediaType, error) {
	response, err := s.do(ctx, http.MethodGet, kind, identifier)
	if err != nil {
		return nil, "", err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, "", err
	}
	if want != (v1.Hash{}) {
		hasher, err := v1.Hasher(want.Algorithm)
		if err != nil {
			return nil, "", err
		}
		_, _ = hasher.Write(content)
		if hex.EncodeToString(hasher.Sum(nil)) != want.Hex {
			return nil, "", errWrongDigest
		}
	}
	// It is a Content-Type header, to which some registries add a charset.
	mediaType, _, _ := strings.Cut(response.Header.Get("Content-Type"), ";")
	return content, types.MediaType(strings.TrimSpace(mediaType)), nil
}

func (s *session) do(ctx context.Context, method, kind, identifier string) (*http.Response, error) {
	address := url.URL{
		Scheme: s.repository.Scheme(),
		Host:   s.repository.RegistryStr(),
		Path:   fmt.Sprintf("/v2/%s/%s/%s", s.repository.RepositoryStr(), kind, identifier),
	}
	request, err := http.NewRequestWithContext(ctx, method, address.String(), nil)
	if err != nil {
		return nil, err
	}
	if kind == "manifests" {
		for _, accepted := range []types.MediaType{
			types.OCIImageIndex, types.DockerManifestList, types.OCIManifestSchema1, types.DockerManifestSchema2,
		} {
			request.Header.Add("Accept", string(accepted))
		}
	}
	response, err := s.client.Do(request)
	if err != nil {
		return nil, err
	}
	if err := transport.CheckError(response, http.StatusOK); err != nil {
		_ = response.Body.Close()
		return nil, err
	}
	return response, nil
}

// image reads what has the digest.
func (s *session) image(ctx context.Context, digest v1.Hash) (image, error) {
	content, mediaType, err := s.manifest(ctx, digest)
	if err != nil {
		return image{}, err
	}
	if !mediaType.IsIndex() {
		found, err := s.platform(ctx, content, nil)
		if err != nil {
			return image{}, err
		}
		return image{platforms: found}, bounded(found)
	}
	nested := maxPlatforms
	entries, err := s.entries(ctx, content, maxDepth, &nested)
	if err != nil {
		return image{}, err
	}
	if len(entries) > maxPlatforms {
		return image{}, &unfitError{ReasonUnfit, fmt.Sprintf("is for more than %d platforms", maxPlatforms), setCommand}
	}
	found := make([][]platformCommand, len(entries))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i, entry := range entries {
		group.Go(func() error {
			content, _, err := s.manifest(ctx, entry.Digest)
			if err != nil {
				return err
			}
			found[i], err = s.platform(ctx, content, entry.Platform)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return image{}, err
	}
	all := image{index: true}
	for _, platforms := range found {
		all.platforms = append(all.platforms, platforms...)
	}
	return all, bounded(all.platforms)
}

func bounded(platforms []platformCommand) error {
	size := 0
	for _, p := range platforms {
		size += len(strings.Join(p.command.Entrypoint, " ")) + len(strings.Join(p.command.Cmd, " "))
	}
	if size > maxWords {
		return &unfitError{ReasonUnfit, fmt.Sprintf("has a command of more than %d KiB", maxWords>>10), setCommand}
	}
	return nil
}

// manifest is that of an image, or an index.
func (s *session) manifest(ctx context.Context, digest v1.Hash) ([]byte, types.MediaType, error) {
	content, mediaType, err := s.read(ctx, "manifests", digest.String(), digest)
	if err != nil {
		return nil, "", err
	}
	if !mediaType.IsIndex() && !mediaType.IsImage() {
		// Static registries don't know what they serve. OCI wants it in the content, too.
		var manifest struct {
			MediaType types.MediaType `json:"mediaType"`
		}
		if err := json.Unmarshal(content, &manifest); err != nil {
			return nil, "", errUnreadable
		}
		mediaType = manifest.MediaType
	}
	if !mediaType.IsIndex() && !mediaType.IsImage() {
		return nil, "", errUnreadable
	}
	return content, mediaType, nil
}

// entries are an index's images that may be for linux, without those of which a container runtime makes nothing: attestations
// (which are of platform unknown/unknown), signatures. Indexes may be nested, as deep as depth, and as many as are left.
func (s *session) entries(ctx context.Context, content []byte, depth int, left *int) ([]v1.Descriptor, error) {
	index, err := v1.ParseIndexManifest(bytes.NewReader(content))
	if *left--; err != nil || depth == 0 || *left < 0 {
		return nil, errUnreadable
	}
	var all []v1.Descriptor
	for _, entry := range index.Manifests {
		if entry.Platform != nil && entry.Platform.OS != "linux" {
			continue
		}
		switch {
		case entry.MediaType.IsImage():
			all = append(all, entry)
		case entry.MediaType.IsIndex():
			nested, _, err := s.read(ctx, "manifests", entry.Digest.String(), entry.Digest)
			if err != nil {
				return nil, err
			}
			deeper, err := s.entries(ctx, nested, depth-1, left)
			if err != nil {
				return nil, err
			}
			all = append(all, deeper...)
		}
	}
	return all, nil
}

// platform is empty for an image that isn't for linux. Where an index doesn't say an image's platform, container runtimes take that
// of its configuration; that of an image outside an index they pass over, but for the operating system.
func (s *session) platform(ctx context.Context, content []byte, listed *v1.Platform) ([]platformCommand, error) {
	manifest, err := v1.ParseManifest(bytes.NewReader(content))
	if err != nil || manifest.Config.Digest == (v1.Hash{}) {
		return nil, errUnreadable
	}
	if listed == nil && manifest.Config.MediaType != "" && !manifest.Config.MediaType.IsConfig() {
		return nil, nil // a chart, a signature
	}
	content, _, err = s.read(ctx, "blobs", manifest.Config.Digest.String(), manifest.Config.Digest)
	if err != nil {
		return nil, err
	}
	config, err := v1.ParseConfigFile(bytes.NewReader(content))
	if err != nil {
		return nil, errUnreadable
	}
	p := platformCommand{contract.Platform{Architecture: config.Architecture, Variant: config.Variant}, commandOf(config)}
	if listed != nil {
		p.Platform = contract.Platform{Architecture: listed.Architecture, Variant: listed.Variant}
	} else if config.OS != "" && config.OS != "linux" {
		return nil, nil
	}
	return []platformCommand{p}, nil
}

func commandOf(config *v1.ConfigFile) Command {
	command := Command{Entrypoint: config.Config.Entrypoint, Cmd: config.Config.Cmd}
	if len(command.Entrypoint) == 1 && command.Entrypoint[0] == "" {
		command.Entrypoint = nil
	}
	return command
}
