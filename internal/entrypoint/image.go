package entrypoint

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"

	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/fair"
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
	// missing says that the index lists the platform, and that the registry hasn't what it lists: no command is known.
	missing bool
}

func (p platformCommand) isMissing() bool { return p.missing }

// isSparse says that some of an index is missing, which is so by choice (mirrors of one architecture) or until somebody pushes it.
func (i image) isSparse() bool { return slices.ContainsFunc(i.platforms, platformCommand.isMissing) }

const (
	// maxPlatforms bounds the requests that one index can cause. Those of the official images have eight.
	maxPlatforms = 64
	// maxDepth is how deep indexes may be nested.
	maxDepth = 3
	// parallel is how many platforms of an index are read at a time.
	parallel = 4
	// maxEntries bounds an index, of which those that aren't for linux and the attestations are a part. Whoever writes 4 MiB of
	// "{}," has written a million of them.
	maxEntries = 1000
	// maxWords bounds what is kept in mind of one image, in bytes. The longest argument that Linux takes is twice as long.
	maxWords = 64 << 10
	// wordSize is what a word takes beside its text, an empty one too.
	wordSize = 16
	// maxEscape is how many bytes of JSON there are at most to one of a text: \u0001.
	maxEscape = 6
	// maxPlatformName bounds the architecture and the variant, which are kept in mind, too.
	maxPlatformName = 64
	// smallDocument is how much of a document is read without waiting for others. Most documents are shorter.
	smallDocument = 32 << 10
	// maxBodies and namespaceBodies are how many longer documents are being read at a time, in total and for one namespace: each may take
	// twice maxResponse for as long as that lasts, which is the registry's choice.
	maxBodies, namespaceBodies = 16, 8
)

var (
	errUnreadable  = errors.New("not an image")
	errRealm       = errors.New("no credentials are sent to where it has its tokens")
	errWrongDigest = errors.New("the content isn't that of the digest")
)

var errTooLong = &unfitError{ReasonUnfit, fmt.Sprintf("has a command of more than %d KiB", maxWords>>10), setCommand}

// session reads from a repository, with one credential.
type session struct {
	client     *http.Client
	repository name.Repository
	namespace  string
	bodies     *fair.Limiter // has one for each long document that is being read
}

// invalidRealm begins an error of the library's, which sends for tokens neither to another private address that is written in numbers nor,
// for a registry with TLS, to where there is none.
const invalidRealm = "invalid realm in www-authenticate: "

// open asks the registry how it wants to be shown a credential, and gets a token if that is how.
func (r *Resolver) open(ctx context.Context, namespace string, repository name.Repository, auth authn.Authenticator) (*session, error) {
	authorised, err := transport.NewWithContext(ctx, repository.Registry, auth, r.transport, []string{repository.Scope(transport.PullScope)})
	if refused, ok := errors.AsType[*transport.Error](err); ok {
		refused.Request = hostOf(refused.Request) // which has the credential, and would be kept with the failure
	}
	switch {
	case err != nil && strings.HasPrefix(err.Error(), invalidRealm):
		return nil, errRealm
	case err != nil:
		return nil, err
	}
	return &session{&http.Client{Transport: authorised}, repository, namespace, r.bodies}, nil
}

// hostOf keeps of a request only who was asked, which may be another than the registry.
func hostOf(request *http.Request) *http.Request {
	return &http.Request{URL: &url.URL{Host: request.URL.Host}}
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
	response, err = s.do(ctx, http.MethodGet, "manifests", identifier)
	if err != nil {
		return v1.Hash{}, err
	}
	defer response.Body.Close()
	got, err := hashOf(cmp.Or(want.Algorithm, "sha256"), response.Body)
	if err == nil && want != (v1.Hash{}) && got != want {
		err = errWrongDigest
	}
	return got, err
}

func hashOf(algorithm string, content io.Reader) (v1.Hash, error) {
	hasher, err := v1.Hasher(algorithm)
	if err != nil {
		return v1.Hash{}, err
	}
	if _, err := io.Copy(hasher, content); err != nil {
		return v1.Hash{}, err
	}
	return v1.Hash{Algorithm: algorithm, Hex: hex.EncodeToString(hasher.Sum(nil))}, nil
}

// isHeadless is for the answers of registries, and of proxies before them, that know no HEAD.
func isHeadless(status int) bool {
	switch status {
	case http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return true
	}
	return false
}

// read returns the content that has the digest. If that is long, it waits for others to have read theirs.
func (s *session) read(ctx context.Context, kind string, digest v1.Hash) ([]byte, types.MediaType, error) {
	response, err := s.do(ctx, http.MethodGet, kind, digest.String())
	if err != nil {
		return nil, "", err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(io.LimitReader(response.Body, smallDocument))
	if err == nil && len(content) == smallDocument {
		if err = s.bodies.Acquire(ctx, s.namespace); err != nil {
			return nil, "", err
		}
		defer s.bodies.Release(s.namespace)
		var rest []byte
		rest, err = io.ReadAll(response.Body)
		content = append(content, rest...)
	}
	if err != nil {
		return nil, "", err
	}
	if got, err := hashOf(digest.Algorithm, bytes.NewReader(content)); err != nil {
		return nil, "", err
	} else if got != digest {
		return nil, "", errWrongDigest
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
	ctx = context.WithValue(ctx, documentKey{}, true)
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
	if response.StatusCode != http.StatusOK {
		_ = response.Body.Close()
		return nil, &transport.Error{StatusCode: response.StatusCode, Request: hostOf(response.Request)}
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
	found := make([][]platformCommand, len(entries))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i, entry := range entries {
		group.Go(func() error {
			var err error
			found[i], err = s.entry(ctx, entry)
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

// bounded refuses what is too much to be kept in mind.
func bounded(platforms []platformCommand) error {
	if sizeOf(platforms) > maxWords {
		return errTooLong
	}
	return nil
}

// sizeOf counts what is kept in mind.
func sizeOf(platforms []platformCommand) int {
	size := 0
	for _, p := range platforms {
		size += len(p.Architecture) + len(p.Variant)
		for _, word := range slices.Concat(p.command.Entrypoint, p.command.Cmd) {
			size += wordSize + len(word)
		}
	}
	return size
}

// manifest is that of an image, or an index.
func (s *session) manifest(ctx context.Context, digest v1.Hash) ([]byte, types.MediaType, error) {
	content, mediaType, err := s.read(ctx, "manifests", digest)
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
func (s *session) entries(ctx context.Context, content []byte, depth int, left *int) ([]descriptor, error) {
	var index indexDocument
	err := json.Unmarshal(content, &index)
	if *left--; err != nil || depth == 0 || *left < 0 {
		return nil, errUnreadable
	}
	var all []descriptor
	for _, entry := range index.Manifests {
		if entry.Platform != nil && !entry.Platform.isLinux() {
			continue
		}
		switch {
		case entry.MediaType.IsImage():
			if entry.Platform != nil && !entry.Platform.fits() {
				return nil, errUnreadable
			}
			all = append(all, entry)
		case entry.MediaType.IsIndex():
			nested, _, err := s.read(ctx, "manifests", entry.Digest)
			if err != nil {
				return nil, err
			}
			deeper, err := s.entries(ctx, nested, depth-1, left)
			if err != nil {
				return nil, err
			}
			all = append(all, deeper...)
		}
		if len(all) > maxPlatforms {
			return nil, &unfitError{ReasonUnfit, fmt.Sprintf("is for more than %d platforms", maxPlatforms), setCommand}
		}
	}
	return all, nil
}

// entry is an image of an index. One that is missing is a matter of its platform alone: nodes of others run the image all the same.
func (s *session) entry(ctx context.Context, listed descriptor) ([]platformCommand, error) {
	var found []platformCommand
	content, _, err := s.manifest(ctx, listed.Digest)
	if err == nil {
		found, err = s.platform(ctx, content, listed.Platform)
	}
	if isMissing(err) && listed.Platform != nil { // else it would have said itself for which it is
		return []platformCommand{{Platform: listed.Platform.ofLinux(), missing: true}}, nil
	}
	return found, err
}

// platform is empty for an image that isn't for linux. Where an index doesn't say an image's platform, container runtimes take that
// of its configuration; that of an image outside an index they pass over, but for the operating system.
func (s *session) platform(ctx context.Context, content []byte, listed *platform) ([]platformCommand, error) {
	var manifest manifestDocument
	if err := json.Unmarshal(content, &manifest); err != nil || manifest.Config.Digest == (v1.Hash{}) {
		return nil, errUnreadable
	}
	if listed == nil && manifest.Config.MediaType != "" && !manifest.Config.MediaType.IsConfig() {
		return nil, nil // a chart, a signature
	}
	content, _, err := s.read(ctx, "blobs", manifest.Config.Digest)
	if err != nil {
		return nil, err
	}
	var config configDocument
	if err := json.Unmarshal(content, &config); errors.Is(err, errTooLong) {
		return nil, errTooLong
	} else if err != nil {
		return nil, errUnreadable
	}
	if listed == nil {
		listed = &config.platform
	}
	if !listed.isLinux() {
		return nil, nil
	}
	if !listed.fits() {
		return nil, errUnreadable
	}
	return []platformCommand{{Platform: listed.ofLinux(), command: commandOf(config)}}, nil
}

func commandOf(config configDocument) Command {
	command := Command{Entrypoint: config.Config.Entrypoint, Cmd: config.Config.Cmd}
	if len(command.Entrypoint) == 1 && command.Entrypoint[0] == "" {
		command.Entrypoint = nil
	}
	return command
}
