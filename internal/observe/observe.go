// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package observe finds the labels that are in use on a host, whoever gave them
// out: on running processes, in the state of Docker, Podman, containerd, CRI-O
// and libvirt, and on content. It reads files only; no engine needs to run, and
// what cannot be read is reported beside what could.
package observe

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/selinux"
	"github.com/palisade-sec/palisade/svirt"
	"github.com/palisade-sec/palisade/svirt/libvirt"
)

// maxFile bounds what is read of one state file.
const maxFile = 64 << 20

// host observes the host whose root is fsys, which is os.DirFS("/") but in tests.
// The error joins what could not be read; the observations are good all the same.
func host(fsys fs.FS) ([]svirt.Observation, error) {
	var out []svirt.Observation
	var errs []error
	for _, source := range []func(fs.FS) ([]svirt.Observation, error){processes, docker, podman, tasks, domains} {
		seen, err := source(fsys)
		out = append(out, seen...)
		errs = append(errs, err)
	}
	return out, errors.Join(errs...)
}

// level is the range of a context, canonical; "" when it has no categories, or is no
// context but an AppArmor profile. What has the form of a context and cannot be read
// is an error: a label that is overlooked is given out again.
func level(text string) (string, error) {
	text = strings.TrimRight(text, "\x00\n")
	const parts = 4
	if strings.Count(text, ":") < parts-1 || strings.HasSuffix(text, ")") {
		return "", nil
	}
	c, err := selinux.ParseContext(text)
	if err != nil {
		return "", err
	}
	if c.Range.High.Categories.IsEmpty() {
		return "", nil
	}
	return c.Range.String(), nil
}

func observation(source, id, context string) ([]svirt.Observation, error) {
	l, err := level(context)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", source, id, err)
	}
	if l == "" {
		return nil, nil
	}
	return []svirt.Observation{{Source: source, ID: id, Level: l}}, nil
}

// processes reads /proc/PID/attr/current. A process that ends meanwhile is none.
func processes(fsys fs.FS) ([]svirt.Observation, error) {
	entries, err := fs.ReadDir(fsys, "proc")
	if err != nil {
		return nil, fmt.Errorf("processes: %w", err)
	}
	var out []svirt.Observation
	var errs []error
	for _, e := range entries {
		if name := e.Name(); name[0] < '0' || name[0] > '9' {
			continue
		}
		b, err := read(fsys, path.Join("proc", e.Name(), "attr", "current"))
		if err != nil {
			continue // gone, or no LSM that has labels
		}
		o, err := observation("process", e.Name(), string(b))
		out = append(out, o...)
		errs = append(errs, err)
	}
	return out, errors.Join(errs...)
}

func docker(fsys fs.FS) ([]svirt.Observation, error) {
	return each(fsys, "docker", dockerRoot(fsys)+"/containers/*/config.v2.json", func(_ string, b []byte) ([]svirt.Observation, error) {
		var c struct{ ID, ProcessLabel, MountLabel string }
		if err := json.Unmarshal(b, &c); err != nil {
			return nil, err
		}
		return either("docker", c.ID, c.ProcessLabel, c.MountLabel)
	})
}

// either takes a container's process label, or where that was switched off the
// label of its content.
func either(source, id, process, mount string) ([]svirt.Observation, error) {
	if o, err := observation(source, id, process); o != nil || err != nil {
		return o, err
	}
	return observation(source, id, mount)
}

func podman(fsys fs.FS) ([]svirt.Observation, error) {
	return each(fsys, "podman", "var/lib/containers/storage/*-containers/containers.json", func(_ string, b []byte) ([]svirt.Observation, error) {
		var list []struct {
			ID    string         `json:"id"`
			Flags map[string]any `json:"flags"`
		}
		if err := json.Unmarshal(b, &list); err != nil {
			return nil, err
		}
		var out []svirt.Observation
		var errs []error
		for _, c := range list {
			process, _ := c.Flags["ProcessLabel"].(string)
			mount, _ := c.Flags["MountLabel"].(string)
			o, err := either("podman", c.ID, process, mount)
			out = append(out, o...)
			errs = append(errs, err)
		}
		return out, errors.Join(errs...)
	})
}

// tasks reads the OCI configurations of running containers: those of containerd
// (which Docker's are as well) and of CRI-O.
func tasks(fsys fs.FS) ([]svirt.Observation, error) {
	read := func(source string) func(string, []byte) ([]svirt.Observation, error) {
		return func(file string, b []byte) ([]svirt.Observation, error) {
			var spec struct {
				Process struct{ SelinuxLabel string }
				Linux   struct{ MountLabel string }
			}
			if err := json.Unmarshal(b, &spec); err != nil {
				return nil, err
			}
			id := path.Base(path.Dir(file))
			if source == "crio" {
				id = path.Base(path.Dir(path.Dir(file)))
			}
			return either(source, id, spec.Process.SelinuxLabel, spec.Linux.MountLabel)
		}
	}
	a, err1 := each(fsys, "containerd", "run/containerd/io.containerd.runtime.v2.task/*/*/config.json", read("containerd"))
	b, err2 := each(fsys, "crio", "run/containers/storage/*-containers/*/userdata/config.json", read("crio"))
	return append(a, b...), errors.Join(err1, err2)
}

// domains reads libvirt's state: of the running domains of both drivers, and of all
// that are defined with a label of their own, which belongs to them also while they
// do not run.
func domains(fsys fs.FS) ([]svirt.Observation, error) {
	parse := func(_ string, b []byte) ([]svirt.Observation, error) {
		d, err := libvirt.Parse(b)
		if err != nil {
			return nil, err
		}
		if l := d.Label("selinux"); l != nil {
			return either("libvirt", d.ID(), l.Label, l.ImageLabel)
		}
		return nil, nil
	}
	var out []svirt.Observation
	var errs []error
	for _, dir := range []string{"run/libvirt", "var/run/libvirt", "etc/libvirt"} {
		for _, driver := range []string{"lxc", "qemu"} {
			o, err := each(fsys, "libvirt", dir+"/"+driver+"/*.xml", parse)
			out = append(out, o...)
			errs = append(errs, err)
		}
	}
	return out, errors.Join(errs...)
}

func each(fsys fs.FS, source, pattern string, parse func(file string, b []byte) ([]svirt.Observation, error)) ([]svirt.Observation, error) {
	files, err := fs.Glob(fsys, pattern)
	if err != nil {
		return nil, err
	}
	var out []svirt.Observation
	var errs []error
	for _, file := range files {
		b, err := read(fsys, file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the container went away
		}
		var seen []svirt.Observation
		if err == nil {
			seen, err = parse(file, b)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %s: %w", source, file, err))
		}
		out = append(out, seen...)
	}
	return out, errors.Join(errs...)
}

func read(fsys fs.FS, file string) ([]byte, error) {
	f, err := fsys.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil {
		return nil, err
	} else if fi.Size() > maxFile {
		return nil, fmt.Errorf("larger than %d MiB", maxFile>>20)
	}
	return io.ReadAll(io.LimitReader(f, maxFile))
}

// contentEntries bounds how many entries of a folder are looked at beside itself.
const contentEntries = 64

// contentOf observes the labels of files and folders: volumes. Of a folder the first
// entries are looked at too, since what is copied there may have brought a label
// along. The error joins labels that cannot be read.
func contentOf(paths []string) ([]svirt.Observation, error) {
	var out []svirt.Observation
	var errs []error
	for _, p := range paths {
		p = filepath.Clean(p)
		seen := map[string]bool{}
		for _, q := range append([]string{p}, entries(p)...) {
			found, err := observation("content", q, label(q))
			errs = append(errs, err)
			for _, o := range found {
				if !seen[o.Level] {
					seen[o.Level] = true
					out = append(out, o)
				}
			}
		}
	}
	return out, errors.Join(errs...)
}

// label is a file's, not followed; "" for none.
func label(path string) string {
	buf := make([]byte, 4096)
	n, err := unix.Lgetxattr(path, "security.selinux", buf)
	if err != nil {
		return ""
	}
	return string(buf[:n])
}

func entries(dir string) []string {
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	names, _ := f.Readdirnames(contentEntries)
	for i, name := range names {
		names[i] = filepath.Join(dir, name)
	}
	return names
}

// Labelled reports whether a folder's label has the given level, however it is
// spelled.
func Labelled(dir, of string) bool {
	l, err := level(label(dir))
	want, werr := selinux.ParseRange(of)
	return err == nil && werr == nil && l == want.String()
}
