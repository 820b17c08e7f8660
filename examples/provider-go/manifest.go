package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"sort"
	"strings"

	rpc "podbridge.io/examples/provider-go/rpc/v1"
)

// manifest is what this provider uses of a v1.Pod. Everything else is either in `allowed`, because
// Kubernetes' side or the scheduler sees to it, or refused.
type manifest struct {
	Kind     string `json:"kind"`
	Metadata struct {
		Name        string            `json:"name"`
		Namespace   string            `json:"namespace"`
		UID         string            `json:"uid"`
		Annotations map[string]string `json:"annotations"`
	} `json:"metadata"`
	Spec struct {
		RestartPolicy                 string      `json:"restartPolicy"`
		Hostname                      string      `json:"hostname"`
		ActiveDeadlineSeconds         *int64      `json:"activeDeadlineSeconds"`
		TerminationGracePeriodSeconds *int64      `json:"terminationGracePeriodSeconds"`
		InitContainers                []container `json:"initContainers"`
		Containers                    []container `json:"containers"`
	} `json:"spec"`
}

type container struct {
	Name       string   `json:"name"`
	Command    []string `json:"command"`
	Args       []string `json:"args"`
	WorkingDir string   `json:"workingDir"`
}

// all returns the containers in the manifest's order: init containers first.
func (m *manifest) all() []container {
	return append(slices.Clone(m.Spec.InitContainers), m.Spec.Containers...)
}

// allowed lists the fields that mean something here, or nothing to any provider. An entry covers
// what is below it; an object of which only parts are listed is walked; `-` alone allows nothing,
// but has the fields below refused one by one.
var allowed = fields(`
	apiVersion kind metadata status
	spec.activeDeadlineSeconds spec.hostname spec.restartPolicy spec.terminationGracePeriodSeconds
	spec.hostIPC spec.hostNetwork spec.hostPID
	spec.affinity spec.nodeName spec.nodeSelector spec.preemptionPolicy spec.priority
	spec.priorityClassName spec.schedulerName spec.schedulingGates spec.tolerations
	spec.topologySpreadConstraints spec.readinessGates spec.overhead
	spec.automountServiceAccountToken spec.enableServiceLinks spec.imagePullSecrets
	spec.serviceAccount spec.serviceAccountName spec.os.name
	spec.securityContext.- spec.volumes[].name
	spec.containers[].name spec.containers[].image spec.containers[].imagePullPolicy
	spec.containers[].command spec.containers[].args spec.containers[].workingDir
	spec.containers[].env[].name spec.containers[].env[].value
	spec.containers[].env[].valueFrom.configMapKeyRef spec.containers[].env[].valueFrom.fieldRef
	spec.containers[].env[].valueFrom.resourceFieldRef
	spec.containers[].env[].valueFrom.secretKeyRef
	spec.containers[].envFrom spec.containers[].ports spec.containers[].resizePolicy
	spec.containers[].resources.limits spec.containers[].resources.requests
	spec.containers[].securityContext.-
`)

// defaults lists values that say nothing, or nothing else than what is so here: what the API server
// fills in where an author wrote nothing must never be refused. For other values of these fields
// `allowed` decides.
var defaults = map[string][]string{
	"spec.dnsPolicy":                                           {"ClusterFirst", "Default"},
	"spec.hostUsers":                                           {"true"},
	"spec.setHostnameAsFQDN":                                   {"false"},
	"spec.shareProcessNamespace":                               {"false"},
	"spec.containers[].stdin":                                  {"false"},
	"spec.containers[].stdinOnce":                              {"false"},
	"spec.containers[].tty":                                    {"false"},
	"spec.containers[].terminationMessagePath":                 {"/dev/termination-log"},
	"spec.containers[].terminationMessagePolicy":               {"File"},
	"spec.containers[].securityContext.privileged":             {"false"},
	"spec.containers[].securityContext.procMount":              {"Default"},
	"spec.containers[].securityContext.readOnlyRootFilesystem": {"false"},
}

// choices lists fields of which only some values can be done.
var choices = map[string][]string{
	"spec.os.name":       {"linux"},
	"spec.restartPolicy": {"Always", "OnFailure", "Never"},
}

// approximated lists what means less here than on a node. Events carry these words.
var approximated = map[string]string{
	"spec.hostname":                      "only the variable HOSTNAME has it",
	"spec.containers[].image":            "ignored: the host's own programs run",
	"spec.containers[].ports":            "containers share the host's network",
	"spec.containers[].resources.limits": "nothing is limited: a process takes what the host has",
}

const (
	backendAnnotation = "podbridge.io/backend"
	tokenVolume       = "kube-api-access-"
)

func fields(text string) map[string]bool {
	found := map[string]bool{}
	for _, path := range strings.Fields(text) {
		found[path] = true
		// What is above it is walked, not allowed as a whole.
		for i, letter := range path {
			if letter == '.' || letter == '[' {
				found[path[:i]] = found[path[:i]]
			}
			if letter == ']' {
				found[path[:i+1]] = found[path[:i+1]]
			}
		}
	}
	return found
}

// parse reads a pod's manifest. Invalid where it is no pod, or another one than the identity's.
func parse(text []byte, pod *rpc.PodIdentity) (*manifest, error) {
	made := &manifest{}
	if err := json.Unmarshal(text, made); err != nil {
		// The decoder's own words may quote the value.
		field, message := "manifest", "not JSON"
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) {
			field, message = place(text, wrong.Field), "found a "+wrong.Value+", which is of the wrong type"
		}
		return nil, fail(invalid, "", violation{field, message})
	}
	if made.Kind != "" && made.Kind != "Pod" {
		return nil, fail(invalid, "", violation{"manifest.kind", "allowed: Pod"})
	}
	var wrong []violation
	for field, told := range map[string][2]string{
		"name":      {made.Metadata.Name, pod.Name},
		"namespace": {made.Metadata.Namespace, pod.Namespace},
		"uid":       {made.Metadata.UID, pod.Uid},
	} {
		if told[0] != "" && told[0] != told[1] {
			wrong = append(wrong, violation{"manifest.metadata." + field, "differs from pod." + field})
		}
	}
	if len(made.Spec.Containers) == 0 {
		wrong = append(wrong, violation{"spec.containers", "required"})
	}
	wrong = append(wrong, made.checkNames()...)
	for _, name := range strings.Split(made.Metadata.Annotations[backendAnnotation], ",") {
		if name = strings.TrimSpace(name); name != "" && name != backendName && name != backendType {
			field := "metadata.annotations[" + backendAnnotation + "]"
			words := fmt.Sprintf("found backend %q; allowed: %s", name, backendName)
			wrong = append(wrong, violation{field, words})
		}
	}
	made.Metadata.Name = pod.Name
	if len(wrong) > 0 {
		sort.Slice(wrong, func(a, b int) bool { return wrong[a].field < wrong[b].field })
		return nil, fail(invalid, "", wrong...)
	}
	return made, nil
}

// place adds to a decoder's path which of the containers it means.
func place(text []byte, field string) string {
	spec, _ := tree(text)["spec"].(map[string]any)
	for _, list := range []string{"containers", "initContainers"} {
		rest, found := strings.CutPrefix(field, "spec."+list)
		items, _ := spec[list].([]any)
		for i, item := range items {
			one, err := json.Marshal(item)
			if found && err == nil && json.Unmarshal(one, &container{}) != nil {
				return fmt.Sprintf("spec.%s[%d]%s", list, i, rest)
			}
		}
	}
	return field
}

// A DNS label: a container's name is part of a path here.
var containerName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

func (m *manifest) checkNames() []violation {
	var wrong []violation
	seen := map[string]bool{}
	for i, one := range m.all() {
		field := m.path(i) + ".name"
		if !containerName.MatchString(one.Name) {
			wrong = append(wrong, violation{field, fmt.Sprintf("found %q; allowed: a DNS label", one.Name)})
		} else if seen[one.Name] {
			wrong = append(wrong, violation{field, fmt.Sprintf("found %q twice", one.Name)})
		}
		seen[one.Name] = true
	}
	return wrong
}

// path returns where a container, by its place in `all`, is in the manifest.
func (m *manifest) path(index int) string {
	if inits := len(m.Spec.InitContainers); index >= inits {
		return fmt.Sprintf("spec.containers[%d]", index-inits)
	}
	return fmt.Sprintf("spec.initContainers[%d]", index)
}

// walker compares a manifest with the lists above, field by field.
type walker struct {
	refused []violation
	approx  []*rpc.Approximation
}

// judge walks the whole manifest: every field that it refuses, and those that mean less here.
func judge(text []byte) ([]violation, []*rpc.Approximation) {
	whole := tree(text)
	spec, _ := whole["spec"].(map[string]any)
	dropInjected(spec)
	walk := &walker{}
	walk.value("", "", whole)
	return walk.refused, walk.approx
}

// tree decodes what `parse` has accepted.
func tree(text []byte) map[string]any {
	var made map[string]any
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&made); err != nil {
		return nil
	}
	return made
}

// changeable lists what may change in a pod that runs: the deadline, which is kept here, and what
// means nothing to a pod that is already placed. Labels and annotations are not in the spec.
var changeable = regexp.MustCompile(
	`^spec\.(activeDeadlineSeconds|tolerations|schedulingGates|nodeSelector|affinity)`)

// changes returns the outermost values below a field that differ and may not.
func changes(field string, before, after any) []violation {
	var found []violation
	switch one := before.(type) {
	case map[string]any:
		if other, same := after.(map[string]any); same {
			names := map[string]bool{}
			for name := range one {
				names[name] = true
			}
			for name := range other {
				names[name] = true
			}
			for _, name := range slices.Sorted(maps.Keys(names)) {
				found = append(found, changes(field+"."+name, one[name], other[name])...)
			}
			return found
		}
	case []any:
		if other, same := after.([]any); same && len(one) == len(other) {
			for i := range one {
				found = append(found, changes(fmt.Sprintf("%s[%d]", field, i), one[i], other[i])...)
			}
			return found
		}
	}
	if !reflect.DeepEqual(before, after) && !changeable.MatchString(field) {
		found = append(found, violation{field, "cannot be changed while the pod runs"})
	}
	return found
}

// dropInjected takes the volume of the service account's token away, which admission adds to every
// pod. The places of the others stay, since paths count them.
func dropInjected(spec map[string]any) {
	drop := func(owner map[string]any, list string) {
		items, _ := owner[list].([]any)
		for i, item := range items {
			if one, ok := item.(map[string]any); ok {
				if name, _ := one["name"].(string); strings.HasPrefix(name, tokenVolume) {
					items[i] = nil
				}
			}
		}
	}
	drop(spec, "volumes")
	for _, list := range []string{"containers", "initContainers"} {
		items, _ := spec[list].([]any)
		for _, item := range items {
			if one, ok := item.(map[string]any); ok {
				drop(one, "volumeMounts")
			}
		}
	}
}

// value judges what is at a place: `path` is the field (`spec.containers[].image`), `where` this
// one (`spec.initContainers[0].image`).
func (w *walker) value(path, where string, value any) {
	// `emptyDir: {}` is a choice; `securityContext: {}` says nothing.
	if value == nil || empty(value) && !strings.HasPrefix(path, "spec.volumes[]") {
		return
	}
	path = strings.Replace(path, "spec.initContainers", "spec.containers", 1)
	if slices.Contains(defaults[path], fmt.Sprint(value)) {
		return
	}
	if some, limited := choices[path]; limited && !slices.Contains(some, fmt.Sprint(value)) {
		words := fmt.Sprintf("found %q; allowed: %s", value, strings.Join(some, ", "))
		w.refused = append(w.refused, violation{where, words})
		return
	}
	if words := approximated[path]; words != "" {
		w.approx = append(w.approx, &rpc.Approximation{Field: where, Message: words})
	}
	whole, known := allowed[path]
	switch below := value.(type) {
	case map[string]any:
		if whole {
			return
		}
		if known || path == "" {
			w.object(path, where, below)
			return
		}
	case []any:
		if whole {
			return
		}
		if known {
			for i, item := range below {
				w.value(path+"[]", fmt.Sprintf("%s[%d]", where, i), item)
			}
			return
		}
		// A list of nothing but what admission injected says nothing.
		if !slices.ContainsFunc(below, func(item any) bool { return item != nil }) {
			return
		}
	}
	if !whole {
		w.refused = append(w.refused, violation{where, "this provider cannot do it"})
	}
}

func (w *walker) object(path, where string, value map[string]any) {
	for _, name := range slices.Sorted(maps.Keys(value)) {
		if path == "" {
			w.value(name, name, value[name])
		} else {
			w.value(path+"."+name, where+"."+name, value[name])
		}
	}
}

// empty says whether a value says nothing: "", an empty list or object.
func empty(value any) bool {
	switch one := value.(type) {
	case string:
		return one == ""
	case []any:
		return len(one) == 0
	case map[string]any:
		return len(one) == 0
	}
	return false
}

// launch is everything that a container's process is started with.
type launch struct {
	argv []string
	env  []string
	dir  string
}

var reference = regexp.MustCompile(`\$(?:\$|\(([^)]*)\))`)

type variable struct {
	value  string
	secret bool
}

// expand resolves a container's environment, command and arguments as the kubelet does. The second
// result names the words (`command[1]`) that hold a secret's value.
func (m *manifest) expand(one container, sent []*rpc.ContainerEnvironment) (launch, []string) {
	var environment *rpc.ContainerEnvironment
	for _, candidate := range sent {
		if candidate.Container == one.Name {
			environment = candidate
		}
	}
	services, values := map[string]variable{}, map[string]variable{}
	for _, each := range environment.GetServiceVariables() {
		services[each.Name] = variable{value: each.GetLiteral()}
	}
	replace := func(text string) variable {
		made := variable{}
		made.value = reference.ReplaceAllStringFunc(text, func(match string) string {
			if match == "$$" {
				return "$"
			}
			name := match[2 : len(match)-1]
			found, ok := values[name]
			if !ok {
				found, ok = services[name]
			}
			if !ok {
				return match
			}
			made.secret = made.secret || found.secret
			return found.value
		})
		return made
	}
	for _, each := range environment.GetVariables() {
		switch source := each.Source.(type) {
		case *rpc.EnvVar_Template:
			values[each.Name] = replace(source.Template)
		case *rpc.EnvVar_Secret:
			values[each.Name] = variable{source.Secret.GetValue(), true}
		case *rpc.EnvVar_Late:
			values[each.Name] = variable{value: podIP}
		default:
			values[each.Name] = variable{value: each.GetLiteral()}
		}
	}
	made, secret := launch{dir: one.WorkingDir}, []string(nil)
	for i, word := range slices.Concat(one.Command, one.Args) {
		expanded := replace(word)
		made.argv = append(made.argv, expanded.value)
		if expanded.secret && i < len(one.Command) {
			secret = append(secret, fmt.Sprintf("command[%d]", i))
		} else if expanded.secret {
			secret = append(secret, fmt.Sprintf("args[%d]", i-len(one.Command)))
		}
	}
	base := map[string]variable{
		"PATH": {value: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		"HOME": {value: home()}, "HOSTNAME": {value: m.Spec.Hostname},
	}
	if m.Spec.Hostname == "" {
		base["HOSTNAME"] = variable{value: m.Metadata.Name}
	}
	for _, layer := range []map[string]variable{services, values} {
		for name, each := range layer {
			base[name] = each
		}
	}
	for name, each := range base {
		made.env = append(made.env, name+"="+each.value)
	}
	sort.Strings(made.env)
	return made, secret
}

// checkLaunch refuses what cannot be started: no command, or a secret where every user of the host
// could read it.
func (m *manifest) checkLaunch(sent []*rpc.ContainerEnvironment) []violation {
	var wrong []violation
	for i, one := range m.all() {
		if len(one.Command) == 0 {
			words := "required: this provider runs no images, and so knows no command of theirs"
			wrong = append(wrong, violation{m.path(i) + ".command", words})
		}
		_, secret := m.expand(one, sent)
		for _, word := range secret {
			words := "holds a Secret's value, and the host's process list would show it"
			wrong = append(wrong, violation{m.path(i) + "." + word, words})
		}
	}
	return wrong
}
