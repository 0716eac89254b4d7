// SPDX-License-Identifier: Apache-2.0

//go:build linux

package observe

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/palisade-sec/palisade/svirt"
)

// All is everything that is observed on the host whose root is the folder root:
// what [host] finds, the labels of the content that the registry's records name,
// and those of volumes of which only an engine knows. The error joins what could
// not be read.
func All(root string, records []svirt.Record) ([]svirt.Observation, error) {
	fsys := os.DirFS(root)
	out, err := host(fsys)
	var dirs []string
	for _, r := range records {
		dirs = append(dirs, r.Content...)
	}
	volumes, verr := volumeFolders(fsys)
	for _, v := range volumes {
		dirs = append(dirs, filepath.Join(root, v))
	}
	slices.Sort(dirs)
	content, cerr := contentOf(slices.Compact(dirs))
	return append(out, content...), errors.Join(err, verr, cerr)
}

// dockerRoot is where Docker keeps its state.
func dockerRoot(fsys fs.FS) string {
	var c struct {
		DataRoot string `json:"data-root"`
	}
	if b, err := read(fsys, "etc/docker/daemon.json"); err == nil && json.Unmarshal(b, &c) == nil && path.IsAbs(c.DataRoot) {
		if root := strings.TrimPrefix(path.Clean(c.DataRoot), "/"); fs.ValidPath(root) && !strings.ContainsAny(root, `*?[\`) {
			return root
		}
	}
	return "var/lib/docker"
}

// volumeFolders are the folders of the host that containers of Docker, Podman,
// containerd and CRI-O have as volumes, also those of containers that do not run:
// a label on their content is in use as long as it is there.
func volumeFolders(fsys fs.FS) ([]string, error) {
	var out []string
	add := func(source string) {
		if p := strings.TrimPrefix(path.Clean(source), "/"); path.IsAbs(source) && fs.ValidPath(p) && !kernelFolder(p) {
			out = append(out, p)
		}
	}
	docker := dockerRoot(fsys)
	for _, pattern := range []string{docker + "/volumes/*/_data", "var/lib/containers/storage/volumes/*/_data"} {
		dirs, err := fs.Glob(fsys, pattern)
		if err != nil {
			return nil, err
		}
		for _, d := range dirs {
			add("/" + d)
		}
	}
	_, err1 := each(fsys, "docker", docker+"/containers/*/config.v2.json", func(_ string, b []byte) ([]svirt.Observation, error) {
		var c struct {
			MountPoints map[string]struct{ Source string }
		}
		if err := json.Unmarshal(b, &c); err != nil {
			return nil, err
		}
		for _, m := range c.MountPoints {
			add(m.Source)
		}
		return nil, nil
	})
	errs := []error{err1}
	for _, pattern := range []string{
		"var/lib/containers/storage/*-containers/*/userdata/config.json",
		"run/containers/storage/*-containers/*/userdata/config.json",
		"run/containerd/io.containerd.runtime.v2.task/*/*/config.json",
	} {
		_, err := each(fsys, "volumes", pattern, func(_ string, b []byte) ([]svirt.Observation, error) {
			var c struct {
				Mounts []struct{ Type, Source string }
			}
			if err := json.Unmarshal(b, &c); err != nil {
				return nil, err
			}
			for _, m := range c.Mounts {
				if m.Type == "bind" {
					add(m.Source)
				}
			}
			return nil, nil
		})
		errs = append(errs, err)
	}
	slices.Sort(out)
	return slices.Compact(out), errors.Join(errs...)
}

// kernelFolder tells of folders whose labels are no container's content.
func kernelFolder(p string) bool {
	top, _, _ := strings.Cut(p, "/")
	return p == "." || top == "proc" || top == "sys" || top == "dev"
}
