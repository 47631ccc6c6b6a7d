package podspec

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strings"

	yamlv3 "go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

// stepsPath is where a Pod lists its steps, as sentences name it.
const stepsPath = "metadata.annotations: " + contract.StepsAnnotation

// maxStepList is the most bytes of a list in YAML.
const maxStepList = 64 << 10

// stepEntry is an entry of StepsAnnotation as a YAML list: a step with the options that the entry sets.
type stepEntry struct {
	name    string
	fields  []string // of the options
	options v1alpha1.StepOptions
}

// isStepList reports whether a value of StepsAnnotation is meant as YAML. The names of containers begin with none of these characters.
func isStepList(value string) bool {
	return strings.IndexAny(strings.TrimSpace(value), "-[{#") == 0
}

// checkStepText rejects a value that is neither a list nor names separated by commas.
func checkStepText(value string) error {
	for _, name := range contract.ParseSteps(value) {
		if strings.ContainsAny(name, ":\n") {
			return fmt.Errorf("%s must be a list: begin each entry with \"- \", or write the names of the steps, separated by commas", stepsPath)
		}
	}
	return nil
}

// parseStepList parses StepsAnnotation as a YAML list, whose entries are names or objects. The error is one sentence for the user.
func parseStepList(value string) ([]stepEntry, error) {
	if len(value) > maxStepList {
		return nil, fmt.Errorf("%s: the list has %d bytes, and it may have %d: split the Pod into several Tasks", stepsPath, len(value), maxStepList)
	}
	document, err := decodeYAML(value)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", stepsPath, err)
	}
	list, isList := document.([]any)
	if !isList || len(list) == 0 {
		return nil, fmt.Errorf("%s must be a list of steps, not %s: write each step as an entry, such as - {name: test, retries: 2}", stepsPath, describe(document))
	}
	entries := make([]stepEntry, len(list))
	seen := make(map[string]bool, len(list))
	for i, element := range list {
		path := fmt.Sprintf("%s[%d]", stepsPath, i)
		if entries[i], err = parseStepEntry(path, element); err != nil {
			return nil, err
		}
		name := entries[i].name
		if seen[name] {
			return nil, fmt.Errorf("%s: the list has the step %q twice: name each container once", path, name)
		}
		seen[name] = true
	}
	return entries, nil
}

func parseStepEntry(path string, element any) (stepEntry, error) {
	object, isObject := element.(fields)
	if !isObject {
		object = fields{"name": element}
	}
	name, isText := object["name"].(string)
	switch value, isSet := object["name"]; {
	case !isObject && !isText:
		return stepEntry{}, fmt.Errorf("%s must be the name of a step or an object with a name, not %s: write it as - {name: test, retries: 2}", path, describe(element))
	case !isSet:
		return stepEntry{}, fmt.Errorf("%s.name is missing: set it to the name of a container", path)
	case !isText:
		return stepEntry{}, checkFields(path+".name", value, reflect.TypeFor[string]())
	case len(validation.IsDNS1123Label(name)) > 0:
		return stepEntry{}, fmt.Errorf("%s.name: %s can't be the name of a container: set it to the name of a container of the Pod", path, quoteShort(name))
	}
	options := make(fields, len(object))
	for key, value := range object {
		if key != "name" {
			options[key] = value
		}
	}
	if err := checkFields(path, options, reflect.TypeFor[v1alpha1.StepOptions]()); err != nil {
		return stepEntry{}, err
	}
	entry := stepEntry{name: name, fields: sortedKeys(options)}
	content, err := json.Marshal(options)
	if err == nil {
		err = json.Unmarshal(content, &entry.options)
	}
	if err != nil {
		return stepEntry{}, fmt.Errorf("%s has a value that can't be read: compare it with kubectl explain task.spec.steps", path)
	}
	return entry, nil
}

// override returns the options of a step of the Task with those that the entry sets over them. A final step has no dependsOn.
func (e stepEntry) override(options v1alpha1.StepOptions) v1alpha1.StepOptions {
	to, from := reflect.ValueOf(&options).Elem(), reflect.ValueOf(e.options)
	for name, i := range jsonFields(to.Type()) {
		if slices.Contains(e.fields, name) {
			to.Field(i).Set(from.Field(i))
		}
	}
	if e.options.Finally && !slices.Contains(e.fields, "dependsOn") {
		options.DependsOn = nil
	}
	return options
}

var (
	yamlLine = regexp.MustCompile(`\bline (\d+)\b`)
	// isFirstLine matches an error about syntax for which the parser names no line: it does so for the first one.
	isFirstLine = regexp.MustCompile(`^yaml: (did not find|found|could not find|mapping values) `)
	yamlTwice   = regexp.MustCompile(`key "(.{1,63})" already set`)
	// nextDocument matches a marker between documents.
	nextDocument = regexp.MustCompile(`(?m)^(---|\.\.\.)(\s|$)`)
)

// writtenOut returns how many bytes the texts of a YAML node have with its aliases written out, or more than most if they are more than that, or if
// an alias repeats what it is a part of. A few thousand aliases of one long text would fill the operator's memory.
func writtenOut(node *yamlv3.Node, most int, sizes map[*yamlv3.Node]int) int {
	if size, isKnown := sizes[node]; isKnown {
		return size
	}
	sizes[node] = most + 1 // of a node within itself
	size := 1 + len(node.Value)
	if node.Kind == yamlv3.AliasNode {
		size = writtenOut(node.Alias, most, sizes)
	}
	for _, part := range node.Content {
		size = min(size+writtenOut(part, most, sizes), most+1)
	}
	sizes[node] = size
	return size
}

// hasMore reports whether anything but comments follows a YAML document. The decoder stops at the end of a list in brackets.
func hasMore(text string) bool {
	decoder := yamlv3.NewDecoder(strings.NewReader(text))
	var node yamlv3.Node
	return decoder.Decode(&node) == nil && !errors.Is(decoder.Decode(&node), io.EOF)
}

// decodeYAML decodes one YAML document. The error completes a sentence that begins with the document's path.
func decodeYAML(text string) (any, error) {
	body := strings.TrimSpace(text)
	if at := nextDocument.FindStringIndex(body); at != nil && at[0] == 0 {
		body = body[at[1]:]
	}
	if nextDocument.MatchString(body) {
		return nil, errors.New("there are several YAML documents: write one list, without separators such as ---")
	}
	var root yamlv3.Node
	var content []byte
	var document any
	err := yamlv3.Unmarshal([]byte(text), &root)
	if err == nil {
		if writtenOut(&root, maxStepList, map[*yamlv3.Node]int{}) > maxStepList {
			return nil, fmt.Errorf("the list has more than %d bytes if its aliases are written out: use fewer aliases", maxStepList)
		}
		content, err = yaml.YAMLToJSONStrict([]byte(text))
	}
	if err == nil {
		err = decodeExactly(content, &document)
	}
	switch {
	case err == nil && hasMore(text):
		return nil, errors.New("there is more text after the list: write all steps in one list, in one pair of brackets")
	case err == nil:
		return document, nil
	}
	if twice := yamlTwice.FindStringSubmatch(err.Error()); twice != nil {
		return nil, fmt.Errorf("the field %s is set twice in one entry: remove one of them", twice[1])
	}
	if line := yamlLine.FindStringSubmatch(err.Error()); line != nil {
		return nil, fmt.Errorf("near line %s, it is not valid YAML: check indentation, quotes and brackets", line[1])
	}
	if isFirstLine.MatchString(err.Error()) {
		return nil, errors.New("near line 1, it is not valid YAML: check indentation, quotes and brackets")
	}
	return nil, errors.New("it is not valid YAML: check indentation, quotes and brackets")
}
