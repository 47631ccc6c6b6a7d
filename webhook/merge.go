package webhook

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

// fields are those of an object as its JSON has them.
type fields = map[string]any

// override is the Task's container with the fields of the Pod's over it. By the time that a webhook sees a Pod, the API server has
// written its defaults into it; they are nothing that the user wants.
func override(container corev1.Container, own fields, ranges map[string][]string) (fields, error) {
	base, over := fieldsOf(container), clone(own)
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
	merged, err := merge(base, over)
	for key, value := range defaults {
		if _, set := merged[key]; !set && err == nil {
			merged[key] = value
		}
	}
	return merged, err
}

// replace is the Task's container in the place of one that only keeps a place. What other webhooks may have put into that one stays, and
// what nobody here knows.
func replace(own fields, known corev1.Container, container corev1.Container) (fields, error) {
	base, over := clone(own), fieldsOf(container)
	for key := range fieldsOf(known) {
		switch key {
		case "env", "envFrom", "volumeMounts", "volumeDevices":
		default:
			delete(base, key)
		}
	}
	return merge(base, over)
}

// merge puts the fields of one container over those of another, as a strategic merge patch does. Where a field says only one of
// several things (a probe asks by HTTP or runs a command, a variable has a value or a valueFrom), it is taken as a whole.
func merge(base, over fields) (fields, error) {
	giveWay(base, over, "livenessProbe", "readinessProbe", "startupProbe", "lifecycle")
	ofBase, _ := base["securityContext"].(fields)
	ofOver, _ := over["securityContext"].(fields)
	giveWay(ofBase, ofOver, "seccompProfile", "appArmorProfile")
	for _, list := range []string{"env", "envFrom", "ports", "volumeMounts"} {
		mergeList(base, over, list)
	}
	return strategicpatch.StrategicMergeMapPatch(base, over, corev1.Container{})
}

// giveWay removes those fields that the other object has too.
func giveWay(base, over fields, keys ...string) {
	for _, key := range keys {
		if _, both := over[key]; both {
			delete(base, key)
		}
	}
}

// mergeList moves the elements of a list over those of the other that are the same: into their place, and what the other one hasn't to the end.
// A variable may be made of those before it: so the order stays, and so do variables of one name, of which the last counts.
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
			if list == "ports" {
				o = withMissing(o.(fields), element.(fields))
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

// elementKey tells which elements of a list are the same. A strategic patch has no key for envFrom, whose whole list it would replace, and
// for ports one that takes UDP for TCP.
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

// withMissing is an object with those fields of the other's that it lacks.
func withMissing(object, other fields) fields {
	all := maps.Clone(other)
	maps.Copy(all, object)
	return all
}

// isDefault says whether a field of a container is what the API server writes where it is missing.
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

// limitRange is how the admission plugin LimitRanger says what it has put into containers that had none
// (k8s.io/kubernetes/plugin/pkg/admission/limitranger).
var limitRange = regexp.MustCompile(`^(?:LimitRanger plugin set: )?(.+) (request|limit) for (?:init )?container (\S+)$`)

// limitRanges returns the sentences of the annotation that the plugin leaves, by the container that they are about. It reads them once: the
// annotation may be the user's, and long.
func limitRanges(pod *corev1.Pod) map[string][]string {
	about := map[string][]string{}
	for part := range strings.SplitSeq(pod.Annotations["kubernetes.io/limit-ranger"], "; ") {
		name := part[strings.LastIndex(part, " ")+1:]
		about[name] = append(about[name], part)
	}
	return about
}

// dropLimitRange takes away the defaults of the namespace's LimitRange. The plugin runs again after the webhook, and puts them where
// the Task has none either.
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

// fieldsOf are the fields of a typed object, without those that aren't set.
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
		delete(f, "resources") // there is no omitempty for structs
	}
	return f
}

func clone(f fields) fields { return fieldsOf(f) }

func containerOf(f fields) (corev1.Container, error) {
	var container corev1.Container
	content, err := json.Marshal(f)
	if err == nil {
		err = json.Unmarshal(content, &container)
	}
	return container, err
}

// decodeExactly reads JSON, and numbers as they are written.
func decodeExactly(content []byte, value any) error {
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.UseNumber()
	return decoder.Decode(value)
}
