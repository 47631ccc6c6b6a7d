package podspec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// fields is an object as decoded from JSON.
type fields = map[string]any

// overrideContainer returns the Task's container with the fields of the Pod's container over it. A webhook sees a Pod with the API server's
// defaults in it. They are no choice of the user: so the Task's fields take precedence over defaults.
func overrideContainer(container corev1.Container, own fields, ranges map[string][]string) (fields, error) {
	base, over := fieldsOf(container), fieldsOf(own)
	defaults := fields{}
	for key, value := range own {
		if isDefault(key, value, own) {
			delete(over, key)
			if own["image"] != taskImage || key != "imagePullPolicy" {
				defaults[key] = value
			}
		}
	}
	if own["image"] == taskImage {
		delete(over, "image")
	}
	dropLimitRange(over, ranges)
	merged, err := mergeContainer(base, over)
	for key, value := range defaults {
		if _, set := merged[key]; !set && err == nil {
			merged[key] = value
		}
	}
	return merged, err
}

// replacePlaceholder returns the Task's container in the place of the placeholder. Of the placeholder it keeps unknown fields, and the lists that
// other webhooks add to.
func replacePlaceholder(own fields, known corev1.Container, container corev1.Container) (fields, error) {
	base, over := fieldsOf(own), fieldsOf(container)
	for key := range fieldsOf(known) {
		switch key {
		case "env", "envFrom", "volumeMounts", "volumeDevices":
		default:
			delete(base, key)
		}
	}
	return mergeContainer(base, over)
}

// mergeContainer puts the fields of one container over those of another, as a strategic merge patch does. It replaces a field as a whole if the field
// holds one of several alternatives, such as a probe by HTTP or by a command.
func mergeContainer(base, over fields) (fields, error) {
	dropOverridden(base, over, "livenessProbe", "readinessProbe", "startupProbe", "lifecycle")
	ofBase, _ := base["securityContext"].(fields)
	ofOver, _ := over["securityContext"].(fields)
	dropOverridden(ofBase, ofOver, "seccompProfile", "appArmorProfile")
	for _, list := range []string{"env", "envFrom", "ports", "volumeMounts"} {
		mergeList(base, over, list)
	}
	return strategicpatch.StrategicMergeMapPatch(base, over, corev1.Container{})
}

// dropOverridden removes fields that the other object has, too.
func dropOverridden(base, over fields, keys ...string) {
	for _, key := range keys {
		if _, both := over[key]; both {
			delete(base, key)
		}
	}
}

// mergeList moves the elements of a list from over to base: into the place of the element with the same key, or to the end. A variable may refer to
// those before it, so the order stays. Variables that share a name stay, too: the last one counts.
func mergeList(base, over fields, list string) {
	ofBase, _ := base[list].([]any)
	ofOver, _ := over[list].([]any)
	if len(ofOver) == 0 {
		return
	}
	left := map[string][]any{}
	for _, element := range ofOver {
		key := elementKey(list, element.(fields))
		left[key] = append(left[key], element)
	}
	var merged []any
	for _, element := range ofBase {
		key := elementKey(list, element.(fields))
		own, both := left[key]
		if !both {
			own = []any{element}
		} else {
			left[key] = nil
		}
		for _, o := range own {
			if list == "ports" { // it keeps the fields that it lacks itself
				port := maps.Clone(element.(fields))
				maps.Copy(port, o.(fields))
				o = port
			}
			merged = append(merged, o)
		}
	}
	for _, element := range ofOver {
		if left[elementKey(list, element.(fields))] != nil {
			merged = append(merged, element)
		}
	}
	base[list] = merged
	delete(over, list)
}

// elementKey returns the key by which mergeList compares elements. A strategic patch has no key for envFrom, whose list it would replace, and a key
// for ports that doesn't distinguish UDP from TCP.
func elementKey(list string, element fields) string {
	switch list {
	case "env":
		return fmt.Sprint(element["name"])
	case "volumeMounts":
		return fmt.Sprint(element["mountPath"])
	case "ports":
		protocol := element["protocol"]
		if protocol == nil {
			protocol = corev1.ProtocolTCP
		}
		return fmt.Sprint(element["containerPort"], "/", protocol)
	}
	return fmt.Sprintf("%#v", element)
}

// isDefault reports whether a field of a container has the value that the API server writes if the field is missing.
func isDefault(key string, value any, container fields) bool {
	switch key {
	case "terminationMessagePath":
		return value == corev1.TerminationMessagePathDefault
	case "terminationMessagePolicy":
		return value == string(corev1.TerminationMessageReadFile)
	case "imagePullPolicy":
		image, _ := container["image"].(string)
		return value == string(defaultPullPolicy(image))
	case "resources":
		resources, _ := value.(fields)
		return len(resources) == 0
	}
	return value == nil
}

// defaultPullPolicy is Kubernetes' own (SetDefaults_Container in k8s.io/kubernetes/pkg/apis/core/v1).
func defaultPullPolicy(image string) corev1.PullPolicy {
	tag, err := name.NewTag(image)
	if err == nil && tag.TagStr() == name.DefaultTag {
		return corev1.PullAlways
	}
	return corev1.PullIfNotPresent
}

// limitRange matches a sentence of the admission plugin LimitRanger about the resources that it has set on a container
// (k8s.io/kubernetes/plugin/pkg/admission/limitranger).
var limitRange = regexp.MustCompile(`^(?:LimitRanger plugin set: )?(.+) (request|limit) for (?:init )?container (\S+)$`)

// limitRanges returns the sentences in the annotation that the plugin leaves, by their container. It reads the annotation once: a user may have
// written it, and it may be long.
func limitRanges(pod *corev1.Pod) map[string][]string {
	about := map[string][]string{}
	for part := range strings.SplitSeq(pod.Annotations["kubernetes.io/limit-ranger"], "; ") {
		name := part[strings.LastIndex(part, " ")+1:]
		about[name] = append(about[name], part)
	}
	return about
}

// dropLimitRange removes the defaults of the namespace's LimitRange. The plugin runs again after the webhook, and sets them if the Task has no
// values either.
func dropLimitRange(container fields, ranges map[string][]string) {
	resources, _ := container["resources"].(fields)
	name, _ := container["name"].(string)
	for _, part := range ranges[name] {
		match := limitRange.FindStringSubmatch(part)
		if match == nil {
			continue
		}
		values, _ := resources[match[2]+"s"].(fields)
		for resource := range strings.SplitSeq(match[1], ", ") {
			delete(values, resource)
		}
	}
}

// fieldsOf returns a copy of the set fields of an object.
func fieldsOf(object any) fields {
	content, err := json.Marshal(object)
	if err != nil {
		panic(err) // the types of the API have JSON
	}
	var f fields
	if err := decodeExactly(content, &f); err != nil {
		panic(err)
	}
	if resources, ok := f["resources"].(fields); ok && len(resources) == 0 {
		delete(f, "resources") // omitempty has no effect on structs
	}
	return f
}

func containerOf(f fields) (corev1.Container, error) {
	var container corev1.Container
	content, err := json.Marshal(f)
	if err == nil {
		err = json.Unmarshal(content, &container)
	}
	return container, err
}

// decodeExactly decodes JSON, and keeps numbers as they are written.
func decodeExactly(content []byte, value any) error {
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.UseNumber()
	return decoder.Decode(value)
}
