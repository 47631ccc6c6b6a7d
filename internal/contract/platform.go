package contract

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
)

// PlatformCommand is the agent's fourth form of call: "agent platform COMMANDS [ARG...]" becomes the process that COMMANDS, a
// PlatformCommands, names for the node's platform, with the ARGs after it. It stands as a container's command where the image runs
// different ones on different platforms.
const PlatformCommand = "platform"

// PlatformCommands are the commands of an image, in the order in which its index lists them.
type PlatformCommands []PlatformArgv

// PlatformArgv is the command of an image on one platform.
type PlatformArgv struct {
	Platform
	Argv []string `json:"argv"`
	// Missing says that the image is made for the platform, and that nobody could tell its command there.
	Missing bool `json:"missing,omitempty"`
}

// Platform is linux on an architecture and a variant of it, in the spelling of OCI.
type Platform struct {
	Architecture string `json:"architecture"`
	Variant      string `json:"variant,omitempty"`
}

// Marshal returns COMMANDS.
func (c PlatformCommands) Marshal() string {
	var content bytes.Buffer
	encoder := json.NewEncoder(&content)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(c); err != nil {
		panic(err) // there is only text in it
	}
	return strings.TrimSuffix(content.String(), "\n")
}

// ParsePlatformCommands reads what Marshal wrote.
func ParsePlatformCommands(text string) (PlatformCommands, error) {
	var c PlatformCommands
	all, rest := elements(text)
	for _, object := range all {
		fields, _ := members(object)
		one := PlatformArgv{
			Platform: Platform{unquote(fields["architecture"]), unquote(fields["variant"])},
			Missing:  fields["missing"] == "true",
		}
		argv, _ := elements(fields["argv"])
		for _, arg := range argv {
			one.Argv = append(one.Argv, unquote(arg))
		}
		c = append(c, one)
	}
	if rest != "]" || slices.ContainsFunc(c, func(one PlatformArgv) bool { return one.Architecture == "" }) {
		return nil, errors.New("the commands of the platforms are not what taskflow writes there")
	}
	return c, nil
}

// Pick returns what there is of the image that a node's container runtime takes from the index.
func (c PlatformCommands) Pick(node Platform) (picked PlatformArgv, found bool) {
	all := make([]Platform, len(c))
	for i := range c {
		all[i] = c[i].Platform
	}
	i := node.Best(all)
	if i < 0 {
		return PlatformArgv{}, false
	}
	return c[i], true
}

// Best is the index of the platform of an image that a node prefers, or -1. A node has a variant on arm only.
func (p Platform) Best(all []Platform) int {
	for _, runs := range compatible(p.normal()) {
		if i := slices.IndexFunc(all, func(other Platform) bool { return other.normal() == runs }); i >= 0 {
			return i
		}
	}
	return -1
}

// normal is one spelling of those that stand for the same (containerd/platforms, normalizeArch).
func (p Platform) normal() Platform {
	p = Platform{strings.ToLower(p.Architecture), strings.ToLower(p.Variant)}
	switch p.Architecture {
	case "i386":
		return Platform{"386", ""}
	case "x86_64", "x86-64", "amd64":
		if p.Variant == "v1" {
			p.Variant = ""
		}
		return Platform{"amd64", p.Variant}
	case "aarch64", "arm64":
		switch p.Variant {
		case "8", "v8", "v8.0":
			p.Variant = ""
		case "9", "9.0", "v9.0":
			p.Variant = "v9"
		}
		return Platform{"arm64", p.Variant}
	case "armhf":
		return Platform{"arm", "v7"}
	case "armel":
		return Platform{"arm", "v6"}
	case "arm":
		switch p.Variant {
		case "":
			p.Variant = "v7"
		case "5", "6", "7", "8":
			p.Variant = "v" + p.Variant
		}
	}
	return p
}

// compatible are the platforms whose images a node runs, the best first (containerd/platforms, platformVector, for the nodes that
// there are: containerd sees variants of arm alone, and of arm64 nothing but v8).
func compatible(node Platform) []Platform {
	all := []Platform{node}
	switch node.Architecture {
	case "amd64":
		return append(all, Platform{"386", ""})
	case "arm64":
		return append([]Platform{{"arm64", ""}}, compatible(Platform{"arm", "v8"})...)
	case "arm":
		version, err := strconv.Atoi(strings.TrimPrefix(node.Variant, "v"))
		for version--; err == nil && version >= 5; version-- {
			all = append(all, Platform{"arm", "v" + strconv.Itoa(version)})
		}
	}
	return all
}
