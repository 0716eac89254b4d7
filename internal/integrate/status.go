// SPDX-License-Identifier: Apache-2.0

package integrate

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	toml "github.com/pelletier/go-toml/v2"

	"github.com/palisade-sec/palisade/internal/hostfacts"
	"github.com/palisade-sec/palisade/target"
)

// runtimeName is what engines call the wrapper runtime in their configuration.
const runtimeName = "palisade"

// Describe completes what is said of an engine from its configuration below root:
// whether it asks for labels, and whether it knows the wrapper runtime. It is the
// Engine of [hostfacts.Options].
func Describe(root string, rt *hostfacts.Runtime) {
	r := reader{root}
	switch rt.Name {
	case "dockerd":
		r.docker(rt)
	case "podman":
		r.podman(rt)
	case "containerd":
		r.containerd(rt)
	case "crio":
		r.crio(rt)
	case "libvirtd", "virtlxcd":
		r.libvirt(rt)
	}
}

// reader reads the configuration of engines below a root.
type reader struct{ root string }

func (r reader) path(name string) string { return filepath.Join(r.root, name) }

func (r reader) docker(rt *hostfacts.Runtime) {
	var config struct {
		SELinux  bool                       `json:"selinux-enabled"`
		Runtimes map[string]json.RawMessage `json:"runtimes"`
	}
	text, err := os.ReadFile(r.path("/etc/docker/daemon.json"))
	if err == nil {
		err = json.Unmarshal(text, &config)
	} else if os.IsNotExist(err) {
		err = nil
	}
	if err != nil {
		rt.Detail = fmt.Sprintf("/etc/docker/daemon.json: %v", err)
		return
	}
	_, has := config.Runtimes[runtimeName]
	rt.SELinux, rt.Palisade = target.AnswerOf(config.SELinux), target.AnswerOf(has)
	if !config.SELinux {
		rt.Detail = `labels nothing: "selinux-enabled" is not set`
	}
}

func (r reader) podman(rt *hostfacts.Runtime) {
	label, wrapped := true, false
	for _, name := range r.dropIns(podmanFiles...) {
		var config struct {
			Containers struct {
				Label *bool `toml:"label"`
			} `toml:"containers"`
			Engine struct {
				Runtimes map[string][]string `toml:"runtimes"`
			} `toml:"engine"`
		}
		if err := r.decodeTOML(name, &config); err != nil {
			rt.Detail = err.Error()
			return
		}
		if config.Containers.Label != nil {
			label = *config.Containers.Label
		}
		if _, ok := config.Engine.Runtimes[runtimeName]; ok {
			wrapped = true
		}
	}
	rt.SELinux, rt.Palisade = target.AnswerOf(label), target.AnswerOf(wrapped)
}

func (r reader) containerd(rt *hostfacts.Runtime) {
	var config struct {
		Plugins map[string]map[string]any `toml:"plugins"`
	}
	err := r.decodeTOML("/etc/containerd/config.toml", &config)
	if err != nil && !os.IsNotExist(err) {
		rt.Detail = err.Error()
		return
	}
	var labels, wrapped bool
	for _, plugin := range config.Plugins {
		if v, ok := plugin["enable_selinux"].(bool); ok && v {
			labels = true
		}
		if c, ok := plugin["containerd"].(map[string]any); ok {
			if runtimes, ok := c["runtimes"].(map[string]any); ok {
				_, has := runtimes[runtimeName]
				wrapped = wrapped || has
			}
		}
	}
	rt.SELinux, rt.Palisade = target.AnswerOf(labels), target.AnswerOf(wrapped)
	if !labels {
		rt.Detail = "labels nothing for Kubernetes: enable_selinux is not set; ctr never labels by itself"
	}
}

func (r reader) crio(rt *hostfacts.Runtime) {
	labels, wrapped := false, false
	for _, name := range r.dropIns("/etc/crio/crio.conf", "/etc/crio/crio.conf.d") {
		var config struct {
			Crio struct {
				Runtime struct {
					SELinux  *bool          `toml:"selinux"`
					Runtimes map[string]any `toml:"runtimes"`
				} `toml:"runtime"`
			} `toml:"crio"`
		}
		if err := r.decodeTOML(name, &config); err != nil {
			rt.Detail = err.Error()
			return
		}
		if v := config.Crio.Runtime.SELinux; v != nil {
			labels = *v
		}
		if _, ok := config.Crio.Runtime.Runtimes[runtimeName]; ok {
			wrapped = true
		}
	}
	rt.SELinux, rt.Palisade = target.AnswerOf(labels), target.AnswerOf(wrapped)
}

// dropIns are the existing files of the list, directories replaced by their
// *.conf files in the order in which engines read them.
func (r reader) dropIns(names ...string) []string {
	var list []string
	for _, name := range names {
		fi, err := os.Stat(r.path(name))
		switch {
		case err != nil:
		case fi.IsDir():
			entries, err := os.ReadDir(r.path(name))
			if err != nil {
				continue
			}
			for _, e := range entries {
				if strings.HasSuffix(e.Name(), ".conf") {
					list = append(list, filepath.Join(name, e.Name()))
				}
			}
		default:
			list = append(list, name)
		}
	}
	return list
}

func (r reader) decodeTOML(name string, v any) error {
	text, err := os.ReadFile(r.path(name))
	if err != nil {
		return err
	}
	if err := toml.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
