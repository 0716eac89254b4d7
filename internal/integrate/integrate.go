// SPDX-License-Identifier: Apache-2.0

// Package integrate plans how container engines start their containers through
// Palisade, and how that is undone, and reads whether they do. Plans are edits of
// package configfile; the formatting of what is there, and its comments, stay.
package integrate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	toml "github.com/pelletier/go-toml/v2"

	"github.com/palisade-sec/palisade/internal/configfile"
	"github.com/palisade-sec/palisade/internal/hostfacts"
)

// Engines are the names that [Plan] takes.
func Engines() []string { return []string{"docker", "podman", "containerd", "crio", "libvirt"} }

// Integration is a plan for one engine.
type Integration struct {
	Engine string `json:"engine"`
	// Snippet is what the engine's configuration needs, for those who write
	// it themselves.
	Snippet string `json:"snippet"`
	// File is the configuration file that the snippet belongs to.
	File string `json:"file"`
	// Edits is what would be written; empty when nothing is to be done.
	Edits []configfile.Edit `json:"-"`
	// Next are the steps that a person takes afterwards.
	Next []string `json:"next"`
}

// Options says how.
type Options struct {
	// Root stands for /.
	Root string
	// Wrapper is the absolute path of palisade-oci, for libvirt of palisade-lxc.
	Wrapper string
	// Default makes the wrapper the runtime of containers that ask for none.
	Default bool
}

// ErrEngine is the error of an engine that is not known.
var ErrEngine = errors.New("unknown engine")

// Plan plans how an engine gets to know the wrapper runtime. It reads the
// engine's configuration and writes nothing. The formatting of what is there,
// and its comments, stay.
func Plan(engine string, o Options) (Integration, error) {
	if !filepath.IsAbs(o.Wrapper) || strings.ContainsAny(o.Wrapper, "\x00\n\"\\") {
		return Integration{}, fmt.Errorf("wrapper runtime %q: want an absolute path without quotes", o.Wrapper)
	}
	switch engine {
	case "docker":
		return o.docker()
	case "podman":
		snippet, err := o.podmanSnippet()
		if err != nil {
			return Integration{Engine: engine, File: podmanFile}, err
		}
		return o.dropIn("podman", podmanFile, snippet, []string{
			"podman run --runtime " + runtimeName + " IMAGE",
			"podman info --format '{{.Host.OCIRuntime.Path}}' shows the default runtime",
		})
	case "containerd":
		return o.containerd()
	case "libvirt":
		return o.libvirt()
	case "crio":
		selinux, err := o.selinux()
		if err != nil {
			return Integration{Engine: engine, File: crioFile}, err
		}
		return o.dropIn("crio", crioFile, o.crioSnippet(selinux), []string{
			"systemctl restart crio",
			runtimeClass,
		})
	}
	return Integration{}, fmt.Errorf("%w %q", ErrEngine, engine)
}

const (
	podmanFile     = "/etc/containers/containers.conf.d/50-palisade.conf"
	containerdFile = "/etc/containerd/config.toml"
	crioFile       = "/etc/crio/crio.conf.d/50-palisade.conf"

	runtimeClass = "Kubernetes: a RuntimeClass with 'handler: " + runtimeName + "', and runtimeClassName in the pod"
)

// selinux reports whether the host starts with SELinux. Engines of Kubernetes take
// the seLinuxOptions of a pod out of its configuration, and say nothing, unless they
// are told that there is SELinux.
func (o Options) selinux() (bool, error) {
	const file = "/etc/selinux/config"
	text, err := configfile.Read(o.path(file))
	if err != nil {
		return false, fmt.Errorf("%s: %w", file, err)
	}
	mode := hostfacts.ShellVariable(string(text), "SELINUX")
	return mode == "enforcing" || mode == "permissive", nil
}

func (o Options) path(name string) string { return filepath.Join(o.Root, name) }

func (o Options) edit(name string, change func(before []byte) ([]byte, error)) ([]configfile.Edit, error) {
	before, err := configfile.Read(o.path(name))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	after, err := change(before)
	if err != nil {
		return nil, fmt.Errorf("%s%s: %w", name, configfile.Position(before, err), err)
	}
	e := configfile.Edit{Path: name, Before: before, After: after, Backup: name + configfile.BackupSuffix}
	if !e.Changes() {
		return nil, nil
	}
	return []configfile.Edit{e}, nil
}

func (o Options) docker() (Integration, error) {
	runtime := fmt.Sprintf("{\"path\": %q}", o.Wrapper)
	snippet, err := dockerAdd([]byte("{}\n"), o, runtime)
	if err != nil {
		return Integration{}, err
	}
	i := Integration{
		Engine: "docker", File: configfile.DockerDaemon,
		Snippet: string(snippet),
		Next: []string{
			"systemctl reload docker   (or SIGHUP; a new default runtime needs a restart)",
			"docker run --runtime " + runtimeName + " IMAGE",
		},
	}
	i.Edits, err = o.edit(configfile.DockerDaemon, func(before []byte) ([]byte, error) {
		if len(bytes.TrimSpace(before)) == 0 {
			return []byte(i.Snippet), nil
		}
		return dockerAdd(before, o, runtime)
	})
	return i, err
}

func dockerAdd(text []byte, o Options, runtime string) ([]byte, error) {
	doc, err := configfile.ParseJSON(text)
	if err != nil {
		return nil, err
	}
	inner, ok, err := doc.Root().Object("runtimes")
	if err == nil && !ok {
		if err = doc.Root().Set("runtimes", "{}"); err == nil {
			inner, _, err = doc.Root().Object("runtimes")
		}
	}
	if err != nil {
		return nil, err
	}
	if !configfile.SameJSON(inner.Get(runtimeName), runtime) {
		err = inner.Set(runtimeName, runtime)
	}
	if err == nil && o.Default {
		err = doc.Root().Set("default-runtime", strconv.Quote(runtimeName))
	}
	if err != nil {
		return nil, err
	}
	text = doc.Bytes()
	if !json.Valid(text) {
		return nil, errors.New("the edit would not be valid JSON; add the snippet by hand")
	}
	return text, nil
}

// dockerRemove takes the runtime away from a file that was edited since.
func dockerRemove(text, original []byte) ([]byte, error) {
	doc, err := configfile.ParseJSON(text)
	if err != nil {
		return nil, err
	}
	root := doc.Root()
	if string(root.Get("default-runtime")) == strconv.Quote(runtimeName) {
		var old []byte
		if was, err := configfile.ParseJSON(original); err == nil {
			old = was.Root().Get("default-runtime")
		}
		if old == nil {
			root.Remove("default-runtime")
		} else if err := root.Set("default-runtime", string(old)); err != nil {
			return nil, err
		}
	}
	inner, ok, err := root.Object("runtimes")
	if err != nil {
		return nil, err
	}
	if ok {
		if inner.Len() == 1 && inner.Get(runtimeName) != nil {
			root.Remove("runtimes")
		} else {
			inner.Remove(runtimeName)
		}
	}
	return doc.Bytes(), nil
}

const (
	blockBegin = "# BEGIN palisade: written by 'palisade host integrate', removed by its --undo\n"
	blockEnd   = "# END palisade\n"
)

// crioSnippet names no annotations: CRI-O passes on all that it does not handle
// itself, and its allowed_annotations takes its own only.
func (o Options) crioSnippet(selinux bool) string {
	s := blockBegin
	if o.Default || selinux {
		s += "[crio.runtime]\n"
		if o.Default {
			s += fmt.Sprintf("default_runtime = %q\n", runtimeName)
		}
		if selinux {
			s += "selinux = true\n"
		}
		s += "\n"
	}
	return s + fmt.Sprintf("[crio.runtime.runtimes.%s]\nruntime_path = %q\nruntime_type = \"oci\"\nruntime_root = \"/run/runc\"\n", runtimeName, o.Wrapper) + blockEnd
}

// dropIn is the plan for engines that read a folder of files: one of our own.
func (o Options) dropIn(engine, file, snippet string, next []string) (Integration, error) {
	i := Integration{Engine: engine, File: file, Snippet: snippet, Next: next}
	var err error
	i.Edits, err = o.edit(file, func(before []byte) ([]byte, error) {
		if before != nil && !bytes.Contains(before, []byte(blockBegin)) {
			return nil, errors.New("is not Palisade's: move it out of the way")
		}
		return []byte(snippet), nil
	})
	return i, err
}

// containerdPlugin is the plugin that has the runtimes, by configuration version.
var containerdPlugin = map[int64]string{2: "io.containerd.grpc.v1.cri", 3: "io.containerd.cri.v1.runtime"}

func (o Options) containerd() (Integration, error) {
	i := Integration{Engine: "containerd", File: containerdFile, Next: []string{
		"systemctl restart containerd",
		"ctr run --runc-binary " + o.Wrapper + " IMAGE NAME COMMAND",
		runtimeClass,
	}}
	selinux, err := o.selinux()
	if err != nil {
		return i, err
	}
	if selinux {
		i.Next = append(i.Next, "SELinux: from here on containerd labels the pods of every runtime")
	}
	i.Edits, err = o.edit(containerdFile, func(before []byte) ([]byte, error) {
		var after []byte
		after, i.Snippet, err = o.containerdAdd(before, selinux)
		return after, err
	})
	return i, err
}

// containerdAdd gives the edited file and the snippet that the edit puts into
// effect.
func (o Options) containerdAdd(before []byte, selinux bool) (text []byte, snippet string, err error) {
	config, version, err := containerdVersion(before)
	if err != nil {
		return nil, "", err
	}
	plugin := containerdPlugin[version]
	keys := o.containerdKeys(plugin, selinux)
	snippet = o.containerdBlock(plugin, config, keys)
	text = removeBlock(before)
	// A table that is there cannot be opened again, so its lines are changed.
	keys = slices.DeleteFunc(keys, func(k key) bool {
		var done bool
		text, done = setKey(text, k)
		return done
	})
	if before == nil {
		text = fmt.Appendf(nil, "version = %d\n", version)
	}
	if len(text) > 0 && text[len(text)-1] != '\n' {
		text = append(text, '\n')
	}
	text = append(text, "\n"+o.containerdBlock(plugin, config, keys)...)
	return text, snippet, o.checkContainerd(text, plugin, selinux)
}

// key is a key of a table, and its value as TOML.
type key struct{ table, name, value string }

// containerdKeys are those of tables that are not our own.
func (o Options) containerdKeys(plugin string, selinux bool) []key {
	var keys []key
	if selinux {
		keys = append(keys, key{fmt.Sprintf("plugins.%q", plugin), "enable_selinux", "true"})
	}
	if o.Default {
		keys = append(keys, key{fmt.Sprintf("plugins.%q.containerd", plugin), "default_runtime_name", strconv.Quote(runtimeName)})
	}
	return keys
}

func containerdVersion(text []byte) (map[string]any, int64, error) {
	var config map[string]any
	if err := toml.Unmarshal(text, &config); err != nil {
		return nil, 0, err
	}
	// Every containerd since 1.3 reads version 2.
	version := int64(2)
	switch v, has := config["version"].(int64); {
	case has:
		version = v
	case len(bytes.TrimSpace(text)) > 0 && config["plugins"] != nil:
		return nil, 0, errors.New("is of version 1; 'containerd config migrate' makes a new one")
	case len(config) > 0:
		return nil, 0, errors.New("has no version; add 'version = 2' as its first line")
	}
	if containerdPlugin[version] == "" {
		return nil, 0, fmt.Errorf("is of version %d; 2 and 3 are known", version)
	}
	return config, version, nil
}

// passedOn is a pattern of the annotations of a pod, and of a container, that
// palisade-oci has to see: all of ours, since one that is misspelt is refused only
// when it arrives. What a pod asks for can only tighten.
//
// Source: containerd internal/cri/util, GetPassthroughAnnotations (path.Match).
const passedOn = "io.github.palisade-sec.*"

func (o Options) containerdBlock(plugin string, config map[string]any, keys []key) string {
	s := blockBegin
	for _, k := range keys {
		s += fmt.Sprintf("[%s]\n%s = %s\n\n", k.table, k.name, k.value)
	}
	table := fmt.Sprintf("plugins.%q.containerd.runtimes.%s", plugin, runtimeName)
	s += fmt.Sprintf("[%s]\nruntime_type = \"io.containerd.runc.v2\"\npod_annotations = [%q]\ncontainer_annotations = [%q]\n\n[%s.options]\nBinaryName = %q\n",
		table, passedOn, passedOn, table, o.Wrapper)
	// The wrapper is started as runc is, so it takes runc's cgroup driver.
	if v, ok := dig(config, "plugins", plugin, "containerd", "runtimes", "runc", "options", "SystemdCgroup").(bool); ok {
		s += fmt.Sprintf("SystemdCgroup = %t\n", v)
	}
	return s + blockEnd
}

func dig(v any, path ...string) any {
	for _, key := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[key]
	}
	return v
}

func removeBlock(text []byte) []byte {
	from := bytes.Index(text, []byte(blockBegin))
	if from < 0 {
		return bytes.Clone(text)
	}
	to := bytes.Index(text[from:], []byte(blockEnd))
	if to < 0 {
		return bytes.Clone(text)
	}
	to += from + len(blockEnd)
	// The empty line before the block came with it.
	if from >= 2 && text[from-1] == '\n' && text[from-2] == '\n' {
		from--
	}
	return slices.Concat(text[:from], text[to:])
}

// defaultMark remembers the value that a changed line had.
const defaultMark = " # palisade: was "

// setKey changes a key where the table that has it is there.
func setKey(text []byte, k key) ([]byte, bool) {
	list := strings.SplitAfter(string(text), "\n")
	header := -1
	for i, line := range list {
		trimmed := strings.TrimSpace(line)
		if strings.HasPrefix(trimmed, "[") {
			if header >= 0 {
				break // a key behind this belongs to another table
			}
			if isHeader(trimmed, k.table) {
				header = i
			}
			continue
		}
		name, value, ok := strings.Cut(trimmed, "=")
		if header < 0 || !ok || strings.TrimSpace(name) != k.name {
			continue
		}
		indent := line[:len(line)-len(strings.TrimLeft(line, " \t"))]
		value, _, _ = strings.Cut(strings.TrimSpace(value), defaultMark)
		if value != k.value {
			list[i] = fmt.Sprintf("%s%s = %s%s%s\n", indent, k.name, k.value, defaultMark, value)
		}
		return []byte(strings.Join(list, "")), true
	}
	if header < 0 {
		return text, false
	}
	line := list[header]
	indent := line[:len(line)-len(strings.TrimLeft(line, " \t"))]
	if !strings.HasSuffix(line, "\n") {
		line += "\n"
	}
	list[header] = line + fmt.Sprintf("%s  %s = %s%snothing\n", indent, k.name, k.value, defaultMark)
	return []byte(strings.Join(list, "")), true
}

// isHeader reports whether a line opens a table.
func isHeader(line, table string) bool {
	return strings.HasPrefix(strings.ReplaceAll(line, "'", `"`), "["+table+"]")
}

// unsetKeys undoes what setKey did.
func unsetKeys(text []byte) []byte {
	var b strings.Builder
	for line := range strings.Lines(string(text)) {
		head, old, marked := strings.Cut(strings.TrimSuffix(line, "\n"), defaultMark)
		switch {
		case !marked:
			b.WriteString(line)
		case old == "nothing":
		default:
			key, _, _ := strings.Cut(head, "=")
			b.WriteString(key + "= " + old + "\n")
		}
	}
	return []byte(b.String())
}

// checkContainerd reads the result as containerd would.
func (o Options) checkContainerd(text []byte, plugin string, selinux bool) error {
	var config map[string]any
	if err := toml.Unmarshal(text, &config); err != nil {
		// Not wrapped: its position is one of the edited text.
		return fmt.Errorf("the edit would not be valid (%s); add the snippet by hand", err.Error())
	}
	containerd := dig(config, "plugins", plugin, "containerd")
	if dig(containerd, "runtimes", runtimeName, "options", "BinaryName") != o.Wrapper ||
		o.Default && dig(containerd, "default_runtime_name") != runtimeName ||
		selinux && dig(config, "plugins", plugin, "enable_selinux") != true {
		return errors.New("the edit would not take effect; add the snippet by hand")
	}
	return nil
}

// PlanUndo plans how an engine forgets the wrapper. A file that is still
// as Palisade left it becomes what it was to the byte; from one that was edited
// since, only what Palisade put there is taken.
func PlanUndo(engine string, o Options) (Integration, error) {
	if engine == "libvirt" {
		return o.unlibvirt()
	}
	file := map[string]string{"docker": configfile.DockerDaemon, "podman": podmanFile, "containerd": containerdFile, "crio": crioFile}[engine]
	if file == "" {
		return Integration{}, fmt.Errorf("%w %q", ErrEngine, engine)
	}
	i := Integration{Engine: engine, File: file, Next: []string{"restart " + engine}}
	current, err := configfile.Read(o.path(file))
	if err != nil {
		return i, fmt.Errorf("%s: %w", file, err)
	}
	original, kept, err := configfile.ReadBackup(o.path(file))
	if err != nil {
		return i, fmt.Errorf("%s: %w", file+configfile.BackupSuffix, err)
	}
	e := configfile.Edit{Path: file, Before: current, After: current}
	if current != nil {
		if e.After, err = without(engine, current, original); err != nil {
			return i, fmt.Errorf("%s: %w", file, err)
		}
		// With our part gone, nothing but the format may be left of a file
		// that was not there, and the original of one that was.
		switch {
		case kept && original == nil && blank(engine, e.After):
			e.After = nil
		case kept && original != nil && sameConfig(engine, e.After, original):
			e.After = original
		}
	}
	if e.Changes() {
		i.Edits = append(i.Edits, e)
	}
	if kept {
		b, err := configfile.Read(o.path(file + configfile.BackupSuffix))
		if err != nil {
			return i, err
		}
		i.Edits = append(i.Edits, configfile.Edit{Path: file + configfile.BackupSuffix, Before: b})
	}
	return i, nil
}

func without(engine string, current, original []byte) ([]byte, error) {
	if engine == "docker" {
		return dockerRemove(current, original)
	}
	return unsetKeys(removeBlock(current)), nil
}

// blank tells whether a configuration says nothing any more.
func blank(engine string, text []byte) bool {
	if engine == "docker" {
		doc, err := configfile.ParseJSON(text)
		return err == nil && doc.Root().Len() == 0
	}
	var config map[string]any
	if toml.Unmarshal(text, &config) != nil {
		return false
	}
	delete(config, "version")
	return len(config) == 0 && !bytes.Contains(text, []byte("#"))
}

func sameConfig(engine string, a, b []byte) bool {
	if engine == "docker" {
		return configfile.SameJSON(a, string(b))
	}
	return bytes.Equal(bytes.TrimSpace(a), bytes.TrimSpace(b))
}
