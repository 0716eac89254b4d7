// SPDX-License-Identifier: Apache-2.0

package integrate

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	toml "github.com/pelletier/go-toml/v2"

	"github.com/palisade-sec/palisade/internal/configfile"
)

// Lists of runtimes by what they can do. Podman knows its own runtimes only: one that
// is not in the list of JSON is asked for its errors in another form, which Podman
// shows worse, and one that is not in the other is refused with --cgroups=disabled.
// The name that is documented for the second ends in an s, and the one that is read
// does not.
//
// Source: containers-common pkg/config/config.go, EngineConfig; containers.conf(5).
const (
	podmanJSON           = "runtime_supports_json"
	podmanNoCgroups      = "runtime_supports_nocgroup"
	podmanNoCgroupsByDoc = "runtime_supports_nocgroups"
)

// podmanDefaults are the lists of a Podman without configuration. A file replaces
// the whole list, so they are written out.
//
// Source: containers-common pkg/config/default.go, defaultConfigFromMemory.
var podmanDefaults = map[string][]string{
	podmanJSON:      {"crun", "runc", "kata", "runsc", "youki", "krun"},
	podmanNoCgroups: {"crun", "krun"},
}

// podmanFiles are what Podman reads, in its order.
var podmanFiles = []string{
	"/usr/share/containers/containers.conf", "/usr/share/containers/containers.conf.d",
	"/etc/containers/containers.conf", "/etc/containers/containers.conf.d",
}

func (o Options) podmanSnippet() (string, error) {
	lists, err := o.podmanLists()
	if err != nil {
		return "", err
	}
	delegate, err := o.delegate()
	if err != nil {
		return "", err
	}
	s := blockBegin + "[engine]\n"
	if o.Default {
		s += fmt.Sprintf("runtime = %q\n", runtimeName)
	}
	s += fmt.Sprintf("%s = %s\n", podmanJSON, tomlList(with(lists[podmanJSON], runtimeName)))
	// The wrapper can what the runtime below it can.
	if slices.Contains(lists[podmanNoCgroups], delegate) {
		list := tomlList(with(lists[podmanNoCgroups], runtimeName))
		s += fmt.Sprintf("%s = %s\n%s = %s\n", podmanNoCgroups, list, podmanNoCgroupsByDoc, list)
	}
	return s + fmt.Sprintf("\n[engine.runtimes]\n%s = [%q]\n", runtimeName, o.Wrapper) + blockEnd, nil
}

func with(list []string, name string) []string {
	if slices.Contains(list, name) {
		return list
	}
	return append(slices.Clone(list), name)
}

func tomlList(list []string) string {
	quoted := make([]string, len(list))
	for i, s := range list {
		b, _ := json.Marshal(s) // strings never fail; TOML's basic strings have these escapes
		quoted[i] = string(b)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// podmanLists are the lists as they are without our own file.
func (o Options) podmanLists() (map[string][]string, error) {
	lists := map[string][]string{}
	for key, list := range podmanDefaults {
		lists[key] = slices.Clone(list)
	}
	r := reader{o.Root}
	for _, name := range r.dropIns(podmanFiles...) {
		if name == podmanFile {
			continue
		}
		var config struct {
			Engine map[string]any `toml:"engine"`
		}
		text, err := configfile.Read(r.path(name))
		if err == nil {
			err = toml.Unmarshal(text, &config)
		}
		if err != nil {
			return nil, fmt.Errorf("%s%s: %w", name, configfile.Position(text, err), err)
		}
		for _, key := range []string{podmanJSON, podmanNoCgroupsByDoc, podmanNoCgroups} {
			value, set := config.Engine[key]
			if !set {
				continue
			}
			list, appends, err := podmanList(value)
			if err != nil {
				return nil, fmt.Errorf("%s: %s: %w", name, key, err)
			}
			if key == podmanNoCgroupsByDoc {
				key = podmanNoCgroups
			}
			if appends {
				list = append(lists[key], list...)
			}
			lists[key] = list
		}
	}
	return lists, nil
}

// podmanList reads a list of names, in which newer versions take {append=true} for
// "and what was there before".
func podmanList(value any) (list []string, appends bool, err error) {
	items, ok := value.([]any)
	if !ok {
		return nil, false, errors.New("is no list")
	}
	list = []string{}
	for _, item := range items {
		switch item := item.(type) {
		case string:
			list = append(list, item)
		case map[string]any:
			value, ok := item["append"].(bool)
			if !ok || len(item) != 1 {
				return nil, false, errors.New("has something else than names")
			}
			appends = value
		default:
			return nil, false, errors.New("has something else than names")
		}
	}
	return list, appends, nil
}

// delegate is the name of the runtime that does the wrapper's work: the configured
// one, or the first of runc and crun that is installed.
func (o Options) delegate() (string, error) {
	const file = "/etc/palisade/oci.json"
	text, err := configfile.Read(o.path(file))
	if err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	if text != nil {
		var config struct {
			Runtime string `json:"runtime"`
		}
		if err := json.Unmarshal(text, &config); err != nil {
			return "", fmt.Errorf("%s%s: %w", file, configfile.Position(text, err), err)
		}
		if config.Runtime != "" {
			return path.Base(config.Runtime), nil
		}
	}
	for _, name := range []string{"runc", "crun"} {
		for _, dir := range []string{"/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"} {
			switch fi, err := os.Stat(o.path(dir + "/" + name)); {
			case err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0:
				return name, nil
			case err != nil && !errors.Is(err, fs.ErrNotExist):
				return "", err
			}
		}
	}
	return "", nil
}
