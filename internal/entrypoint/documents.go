package entrypoint

import (
	"bytes"
	"encoding/json"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// The parts of an index, of an image's manifest, and of its configuration that are needed. Whoever writes a Pod chooses who wrote
// these: what isn't named here takes no memory, and what is named is bounded.
type (
	indexDocument struct {
		Manifests descriptors `json:"manifests"`
	}
	manifestDocument struct {
		Config descriptor `json:"config"`
	}
	configDocument struct {
		platform
		Config struct {
			Entrypoint words `json:"Entrypoint"`
			Cmd        words `json:"Cmd"`
		} `json:"config"`
	}
	descriptor struct {
		MediaType types.MediaType `json:"mediaType"`
		Digest    v1.Hash         `json:"digest"`
		Platform  *platform       `json:"platform"`
	}
	platform struct {
		OS           string `json:"os"`
		Architecture string `json:"architecture"`
		Variant      string `json:"variant"`
	}
	descriptors []descriptor
	words       []string
)

// isLinux is true where nothing is said, too, as it is for containerd on linux (containerd/platforms, normalizeOS).
func (p platform) isLinux() bool { return p.OS == "" || p.OS == "linux" }

func (p platform) ofLinux() contract.Platform {
	return contract.Platform{Architecture: p.Architecture, Variant: p.Variant}
}

func (p platform) fits() bool {
	return len(p.Architecture) <= maxPlatformName && len(p.Variant) <= maxPlatformName
}

// UnmarshalJSON implements json.Unmarshaler. It stops at the first entry too many.
func (d *descriptors) UnmarshalJSON(content []byte) error {
	*d = nil
	decoder := json.NewDecoder(bytes.NewReader(content))
	if _, err := decoder.Token(); err != nil {
		return err
	}
	for read := 0; decoder.More(); read++ {
		if read == maxEntries {
			return errUnreadable
		}
		var entry descriptor
		if err := decoder.Decode(&entry); err != nil {
			return err
		}
		if entry.MediaType.IsImage() || entry.MediaType.IsIndex() { // nothing else is needed, and its texts may be long
			*d = append(*d, entry)
		}
	}
	return nil
}

// UnmarshalJSON implements json.Unmarshaler. It doesn't begin with what is too long however it is written.
func (w *words) UnmarshalJSON(content []byte) error {
	if len(content) > maxEscape*maxWords {
		return errTooLong
	}
	return json.Unmarshal(content, (*[]string)(w))
}
