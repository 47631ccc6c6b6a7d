package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// record describes the running cluster, or the last one if it was not ended. It is stored in runDir.
type record struct {
	State          string             `json:"state"` // the state folder of the clone that created it
	MadeFolders    []string           `json:"madeFolders"`
	KernelSettings map[string]string  `json:"kernelSettings"` // by file below /proc/sys: the value before the cluster
	Processes      map[string]process `json:"processes"`      // by component
}

func (r record) aliveComponents() []string {
	var names []string
	for name, p := range r.Processes {
		if p.alive() {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

const recordFile = runDir + "/cluster.json"

// readRecord returns an empty record if there is none.
func readRecord(file string) (record, error) {
	r := record{Processes: map[string]process{}}
	content, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(content, &r); err != nil {
		return r, fmt.Errorf("reading %s: %w", file, err)
	}
	return r, nil
}

func (r record) write(file string) error {
	content, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	temp := file + ".tmp"
	if err := os.WriteFile(temp, content, 0o644); err != nil {
		return err
	}
	return os.Rename(temp, file)
}
