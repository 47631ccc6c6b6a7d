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

// image is what is known of an image: the commands of its Linux platforms.
type image struct {
	// index is true if a container runtime selects a platform by the node. Otherwise there is at most one platform.
	index     bool
	platforms []platformCommand
}

type platformCommand struct {
	contract.Platform
	command Command
	// missing is true if the index lists the platform, but the registry lacks its content. Its command is unknown.
	missing bool
}

func (p platformCommand) isMissing() bool { return p.missing }

// isSparse reports whether platforms are missing. They may be by choice, as in a mirror of one architecture, or until someone pushes them.
func (i image) isSparse() bool { return slices.ContainsFunc(i.platforms, platformCommand.isMissing) }

const (
	// maxPlatforms bounds the requests that one index can cause. Docker's official images have eight platforms.
	maxPlatforms = 64
	// maxDepth bounds the nesting of indexes.
	maxDepth = 3
	// parallel is how many platforms of an index are read at a time.
	parallel = 4
	// maxEntries bounds the entries of an index, other operating systems and attestations included. 4 MiB of "{}," would be a million of
	// them.
	maxEntries = 1000
	// maxWords bounds the cached words of one image, in bytes. Linux accepts an argument of twice that length.
	maxWords = 64 << 10
	// wordSize is what a word takes in memory beside its text.
	wordSize = 16
	// maxEscape is the most bytes of JSON that one byte of text takes: \u0001.
	maxEscape = 6
	// maxPlatformName bounds architecture and variant, which are cached.
	maxPlatformName = 64
	// smallDocument is how much of a document is read without waiting for a turn. Most documents are shorter.
	smallDocument = 32 << 10
	// maxBodies and namespaceBodies bound how many longer documents are read at a time, in total and for one namespace. Each may take twice
	// maxResponse of memory for as long as the registry likes.
	maxBodies, namespaceBodies = 16, 8
)

var errUnreadable = errors.New("not an image")

// oversized is the fault of an image that exceeds a bound.
func oversized(format string, bound int) *fault {
	why := fmt.Sprintf(format, bound)
	return &fault{reason: ReasonUnfit, isPermanent: true, why: why, remedy: setCommand, log: why}
}

func tooLong() *fault { return oversized("has a command of more than %d KiB", maxWords>>10) }

func wrongDigest() *fault {
	return &fault{reason: ReasonWrongDigest, why: "HOST serves content that does not match the digest", log: "the content does not match the digest"}
}

// session reads from one repository with one credential.
type session struct {
	client     *http.Client
	repository name.Repository
	namespace  string
	bodies     *fair.Limiter // counts the long documents that are being read
}

// invalidRealm begins the library's error for a token service that it refuses: at another private IP address, or without TLS although the
// registry has TLS.
const invalidRealm = "invalid realm in www-authenticate: "

// open asks the registry for its authentication scheme, and gets a token if it uses tokens. Success ends an outage.
func (l lookup) open(ctx context.Context, auth authn.Authenticator) (*session, error) {
	repository := l.source.Context()
	authorised, err := transport.NewWithContext(ctx, repository.Registry, auth, l.transport, []string{repository.Scope(transport.PullScope)})
	if refused, ok := errors.AsType[*transport.Error](err); ok {
		refused.Request = hostOf(refused.Request) // the request holds the credential, and the error may be cached
	}
	switch {
	case err != nil && strings.HasPrefix(err.Error(), invalidRealm):
		return nil, &fault{
			reason: ReasonBlocked, why: "HOST issues its tokens at a private address without a DNS name, or without TLS",
			remedy: "set command, or give the registry's token service a DNS name and TLS",
			log:    "credentials are not sent to its token service",
		}
	case err != nil:
		return nil, err
	}
	l.endOutage()
	return &session{&http.Client{Transport: authorised}, repository, l.keys.namespace, l.bodies}, nil
}

// hostOf keeps only the host of a request, which may differ from the registry's after a redirect.
func hostOf(request *http.Request) *http.Request {
	return &http.Request{URL: &url.URL{Host: request.URL.Host}}
}

// digest returns the digest of a tag, or checks that a digest exists. It sends a HEAD, which registries count least against rate limits,
// and a GET if the registry does not support HEAD.
func (s *session) digest(ctx context.Context, identifier string) (v1.Hash, error) {
	want, _ := v1.NewHash(identifier) // zero for a tag
	response, err := s.do(ctx, http.MethodHead, "manifests", identifier)
	var refused *transport.Error
	switch {
	case err == nil:
		_ = response.Body.Close()
		if want != (v1.Hash{}) {
			return want, nil // the registry's own header does not matter
		}
		if digest, err := v1.NewHash(response.Header.Get("Docker-Content-Digest")); err == nil {
			return digest, nil
		}
	case errors.As(err, &refused) && slices.Contains(headless, refused.StatusCode):
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
		err = wrongDigest()
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

// headless are the statuses with which registries, and proxies in front of them, answer a HEAD that they do not support.
var headless = []int{http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented}

// read returns the content with the digest. For a long document it waits for its turn.
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
		return nil, "", wrongDigest()
	}
	// Some registries add a charset.
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

// image reads the image or index with the digest.
func (s *session) image(ctx context.Context, digest v1.Hash) (image, error) {
	content, mediaType, err := s.manifest(ctx, digest)
	if err != nil {
		return image{}, err
	}
	found := image{index: mediaType.IsIndex()}
	if found.index {
		found.platforms, err = s.platforms(ctx, content)
	} else {
		found.platforms, err = s.platform(ctx, content, nil)
	}
	if err == nil && sizeOf(found.platforms) > maxWords {
		err = tooLong()
	}
	return found, err
}

// platforms reads the images of an index.
func (s *session) platforms(ctx context.Context, index []byte) ([]platformCommand, error) {
	nested := maxPlatforms
	entries, err := s.entries(ctx, index, maxDepth, &nested)
	if err != nil {
		return nil, err
	}
	found := make([][]platformCommand, len(entries))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i, entry := range entries {
		group.Go(func() (err error) {
			found[i], err = s.entry(ctx, entry)
			return err
		})
	}
	err = group.Wait()
	return slices.Concat(found...), err
}

// sizeOf returns how many bytes the platforms take in a cache.
func sizeOf(platforms []platformCommand) int {
	size := 0
	for _, p := range platforms {
		size += len(p.Architecture) + len(p.Variant) + sizeOfWords(p.command.Entrypoint, p.command.Cmd)
	}
	return size
}

func sizeOfWords(lists ...[]string) int {
	size := 0
	for _, word := range slices.Concat(lists...) {
		size += wordSize + len(word)
	}
	return size
}

// manifest reads the manifest of an image, or an index.
func (s *session) manifest(ctx context.Context, digest v1.Hash) ([]byte, types.MediaType, error) {
	content, mediaType, err := s.read(ctx, "manifests", digest)
	if err != nil {
		return nil, "", err
	}
	if !mediaType.IsIndex() && !mediaType.IsImage() {
		// Static registries do not know the type. The content has it, too, as the OCI specification recommends.
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

// entries returns the images of an index that may be for Linux. It drops what container runtimes ignore: attestations (platform
// unknown/unknown) and signatures. Indexes may be nested, up to depth, and left bounds how many are read.
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
			return nil, oversized("has more than %d platforms", maxPlatforms)
		}
	}
	return all, nil
}

// entry reads one image of an index. A missing one affects only its platform: nodes of other platforms run the image.
func (s *session) entry(ctx context.Context, listed descriptor) ([]platformCommand, error) {
	var found []platformCommand
	content, _, err := s.manifest(ctx, listed.Digest)
	if err == nil {
		found, err = s.platform(ctx, content, listed.Platform)
	}
	if isMissing(err) && listed.Platform != nil { // otherwise only the missing content has the platform
		return []platformCommand{{Platform: listed.Platform.Platform, missing: true}}, nil
	}
	return found, err
}

// platform returns nothing for an image that is not for Linux. If an index does not say an image's platform, container runtimes read it
// from the configuration. Of an image outside an index they check only the operating system.
func (s *session) platform(ctx context.Context, content []byte, listed *platform) ([]platformCommand, error) {
	var manifest manifestDocument
	if err := json.Unmarshal(content, &manifest); err != nil || manifest.Config.Digest == (v1.Hash{}) {
		return nil, errUnreadable
	}
	if listed == nil && manifest.Config.MediaType != "" && !manifest.Config.MediaType.IsConfig() {
		return nil, nil // such as a Helm chart or a signature
	}
	content, _, err := s.read(ctx, "blobs", manifest.Config.Digest)
	if err != nil {
		return nil, err
	}
	var config configDocument
	if err := json.Unmarshal(content, &config); err != nil {
		if known, ok := errors.AsType[*fault](err); ok {
			return nil, known
		}
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
	command := Command{Entrypoint: config.Config.Entrypoint, Cmd: config.Config.Cmd}
	if slices.Equal(command.Entrypoint, []string{""}) {
		command.Entrypoint = nil
	}
	return []platformCommand{{Platform: listed.Platform, command: command}}, nil
}
