package contract

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
)

// PlatformCommand executes an image's command for the platform of the node: "agent platform COMMANDS [ARG...]", where COMMANDS is a
// PlatformCommands. It is the command of a step whose image has different commands on different platforms.
const PlatformCommand = "platform"

// PlatformCommands are the commands of an image, in the order of its index.
type PlatformCommands []PlatformArgv

// PlatformArgv is the command of an image on one platform.
type PlatformArgv struct {
	Platform
	Argv []string `json:"argv"`
	// Missing is set if the index lists the platform, but its command could not be resolved.
	Missing bool `json:"missing,omitempty"`
}

// Platform is Linux on an architecture and its variant, as the OCI image specification spells them.
type Platform struct {
	Architecture string `json:"architecture"`
	Variant      string `json:"variant,omitempty"`
}

// Marshal returns the COMMANDS of a PlatformCommand.
func (c PlatformCommands) Marshal() string {
	var content bytes.Buffer
	encoder := json.NewEncoder(&content)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(c); err != nil {
		panic(err) // strings and booleans always have an encoding
	}
	return strings.TrimSuffix(content.String(), "\n")
}

// ParsePlatformCommands parses what Marshal returns.
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
		return nil, errors.New("the commands of the platforms are not in the format that taskflow writes")
	}
	return c, nil
}

// Pick returns the command of the image that the node's container runtime selects from the index.
func (c PlatformCommands) Pick(node Platform) (picked PlatformArgv, found bool) {
	all := make([]Platform, len(c))
	for i := range c {
		all[i] = c[i].Platform
	}
	if i := node.Best(all); i >= 0 {
		return c[i], true
	}
	return PlatformArgv{}, false
}

// Best returns the index of the platform that a node prefers, or -1 if it can run none. Only arm nodes have a variant.
func (p Platform) Best(all []Platform) int {
	for _, runs := range compatible(p.normal()) {
		if i := slices.IndexFunc(all, func(other Platform) bool { return other.normal() == runs }); i >= 0 {
			return i
		}
	}
	return -1
}

// normal returns the one spelling for platforms that have several (containerd/platforms, normalizeArch).
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

// compatible returns the platforms whose images a node can run, the best first (platformVector in containerd/platforms). containerd detects
// variants only on arm, and only v8 on arm64.
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
