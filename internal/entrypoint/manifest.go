package entrypoint

import (
	"bytes"
	"encoding/json"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// The fields that are needed of an index, a manifest and a configuration. The author of a Pod chooses who wrote these: other fields are not
// decoded, and these are bounded.
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
		OS string `json:"os"`
		contract.Platform
	}
	descriptors []descriptor
	words       []string
)

// isLinux reports whether the platform is Linux. containerd on Linux takes an empty OS for Linux, too (containerd/platforms, normalizeOS).
func (p platform) isLinux() bool { return p.OS == "" || p.OS == "linux" }

func (p platform) fits() bool {
	return len(p.Architecture) <= maxPlatformName && len(p.Variant) <= maxPlatformName
}

// UnmarshalJSON implements json.Unmarshaler. It stops after maxEntries.
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
		if entry.MediaType.IsImage() || entry.MediaType.IsIndex() { // other entries are not needed, and may be long
			*d = append(*d, entry)
		}
	}
	return nil
}

// UnmarshalJSON implements json.Unmarshaler. It refuses what must exceed maxWords, whatever the escapes, before it decodes.
func (w *words) UnmarshalJSON(content []byte) error {
	if len(content) > maxEscape*maxWords {
		return tooLong()
	}
	return json.Unmarshal(content, (*[]string)(w))
}
