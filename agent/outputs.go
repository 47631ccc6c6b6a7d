//go:build linux

package agent

import (
	"errors"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// maxOutputs is the maximum size of the file with the outputs of a step, in bytes.
const maxOutputs = 1 << 20

// outputs are the outputs of a step. The keys are in the order of the file, each once.
type outputs struct {
	keys   []string
	values map[string]string
}

func outputFile(runDir string, n int) string {
	return filepath.Join(contract.StepDir(runDir, n), contract.OutputFile)
}

// removeOutputs takes away what an earlier run of the command wrote. A directory is moved aside, because os.RemoveAll would make the agent larger. If
// that fails, the file can't be valid, and the step fails after its command.
func removeOutputs(runDir string, n int) {
	path := outputFile(runDir, n)
	if errors.Is(unix.Unlink(path), unix.EISDIR) {
		_ = unix.Rename(path, path+"."+strconv.FormatInt(time.Now().UnixNano(), 36))
	}
}

// readOutputs reads the outputs of step n. A step without the file has none. It trusts nothing that it finds: a link, a FIFO or an endless file
// is an error. With a key, it returns only that output, because the agent stays in memory while its command runs. Without one, the outputs are the
// agent's own: it makes the file readable for the other steps, which may run as other users.
func readOutputs(runDir string, n int, key string) (outputs, error) {
	fd, err := unix.Open(outputFile(runDir, n), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	switch {
	case err == nil:
		defer unix.Close(fd)
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return outputs{}, nil
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENXIO): // a link, or a socket
		return outputs{}, errNoFile
	default:
		return outputs{}, errors.New("$" + contract.OutputVariable + " can't be opened: " + err.Error() + "; write it as the user of the container")
	}
	var info unix.Stat_t
	if err := unix.Fstat(fd, &info); err != nil || info.Mode&unix.S_IFMT != unix.S_IFREG {
		return outputs{}, errNoFile
	}
	const readable = 0o444
	if key == "" && unix.Fchmod(fd, readable) != nil && info.Mode&readable != readable {
		return outputs{}, errors.New("$" + contract.OutputVariable + " belongs to another user and is not readable for all: write it as the user of the container")
	}
	content, ok := readAll(fd, maxOutputs+1)
	switch {
	case !ok:
		return outputs{}, errors.New("$" + contract.OutputVariable + " can't be read: check the volume of the node")
	case len(content) > maxOutputs:
		return outputs{}, errors.New("$" + contract.OutputVariable + " is larger than 1 MiB: write large results to a volume, and the path as an output")
	}
	all, err := parseOutputs(string(content), key)
	for key, value := range all.values {
		all.values[key] = strings.Clone(value) // without the rest of the file
	}
	return all, err
}

var errNoFile = errors.New("$" + contract.OutputVariable + " is not a regular file: write lines KEY=value to it")

// parseOutputs parses lines in the grammar of Kubernetes' env files (KEP-3721, pkg/kubelet/util/env): KEY='value', where the value is literal and
// may have several lines, with a comment behind it; blank lines, and lines that begin with "#". Beyond that grammar, a value without quotes is the
// rest of its line, literally. A key that is there twice has the last value.
//
// Kubernetes reads KEY= 'value' as an empty value, as a shell does. Here it is an error.
//
// If only is not empty, the other keys are left out.
func parseOutputs(text, only string) (outputs, error) {
	all := outputs{values: map[string]string{}}
	lines := lineReader{rest: text}
	for {
		line, ok := lines.next()
		if !ok {
			return all, nil
		}
		line = strings.TrimLeft(line, " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		number := lines.number
		key, value, err := splitLine(line)
		if quoted, ok := strings.CutPrefix(value, "'"); ok && err == "" {
			value, err = lines.unquote(quoted)
		}
		switch {
		case err != "":
		case strings.ContainsRune(value, 0):
			err = "has a zero byte: encode binary data, for example with base64"
		case !utf8.ValidString(value):
			err = "is not UTF-8 text: encode binary data, for example with base64"
		}
		if err != "" {
			return outputs{}, errors.New("line " + strconv.Itoa(number) + " of $" + contract.OutputVariable + " " + err)
		}
		if only != "" && key != only {
			continue
		}
		if _, again := all.values[key]; !again {
			all.keys = append(all.keys, key)
		}
		all.values[key] = value
	}
}

// splitLine splits a line at its first "=". The problem is the rest of a sentence about the line, or "".
func splitLine(line string) (key, value, problem string) {
	key, value, found := strings.Cut(line, "=")
	switch {
	case !found:
		return "", "", `has no "=": write KEY=value, and a value of several lines in single quotes`
	case key != strings.TrimRight(key, " \t"), value != strings.TrimLeft(value, " \t"):
		return "", "", `has white space around "=": write KEY=value`
	case !isVariableName(key):
		const longest = 64
		return "", "", "has the key " + strconv.Quote(key[:min(len(key), longest)]) + ", which is no variable name: use letters, digits and underscores"
	case strings.HasPrefix(value, `"`):
		return "", "", "begins its value with a double quote: write KEY=value, or KEY='value' with single quotes"
	}
	return key, value, ""
}

func isVariableName(key string) bool {
	for i, c := range []byte(key) {
		isLetter := c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !isLetter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return key != ""
}

// lineReader splits a text into lines, without their line ends.
type lineReader struct {
	rest   string
	number int // of the line that next returned last, from 1
}

func (r *lineReader) next() (line string, ok bool) {
	if r.rest == "" {
		return "", false
	}
	line, r.rest, _ = strings.Cut(r.rest, "\n")
	r.number++
	return strings.TrimSuffix(line, "\r"), true
}

// unquote returns the value behind a single quote, which may end on a later line. The problem is as in splitLine.
func (r *lineReader) unquote(line string) (value, problem string) {
	var all strings.Builder
	for {
		part, behind, isClosed := strings.Cut(line, "'")
		all.WriteString(part)
		if isClosed {
			if behind = strings.TrimLeft(behind, " \t"); behind != "" && behind[0] != '#' {
				return "", "has text behind the closing quote: put only a comment there, and no single quote into a value in single quotes"
			}
			return all.String(), ""
		}
		var ok bool
		if line, ok = r.next(); !ok {
			return "", "begins a value whose single quote is not closed: close it"
		}
		all.WriteByte('\n')
	}
}
