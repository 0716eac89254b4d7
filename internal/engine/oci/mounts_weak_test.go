// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestOwnDev(t *testing.T) {
	dev := []specs.Mount{{Destination: "/dev", Type: "tmpfs", Source: "tmpfs"}}
	for _, row := range []struct {
		name, link, to string
		mounts         []specs.Mount
		want           error
	}{
		{name: "no links"},
		{name: "null", link: "null", to: "/etc/passwd", want: errDevLink},
		{name: "console", link: "console", to: "../outside", want: errDevLink},
		{name: "ptmx elsewhere", link: "ptmx", to: "/x", want: errDevLink},
		{name: "ptmx as it should be", link: "ptmx", to: "pts/ptmx"},
		{name: "what no runtime makes", link: "fd", to: "/proc/self/fd"},
		{name: "hidden by a mount", link: "null", to: "/x", mounts: dev},
		{name: "hidden by another spelling", link: "null", to: "/x", mounts: []specs.Mount{{Destination: "dev/", Type: "tmpfs"}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			root := t.TempDir()
			if err := os.Mkdir(filepath.Join(root, "dev"), 0o755); err != nil {
				t.Fatal(err)
			}
			if row.link != "" {
				if err := os.Symlink(row.to, filepath.Join(root, "dev", row.link)); err != nil {
					t.Fatal(err)
				}
			}
			err := checkOwnDev(&specs.Spec{Root: &specs.Root{Path: root}, Mounts: row.mounts})
			if !errors.Is(err, row.want) || (err == nil) != (row.want == nil) {
				t.Errorf("%v, want %v", err, row.want)
			}
		})
	}
}

func TestVolumePoints(t *testing.T) {
	root, volume, other := t.TempDir(), t.TempDir(), t.TempDir()
	if err := os.MkdirAll(filepath.Join(volume, "there"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, l := range []string{filepath.Join(volume, "exchanged"), filepath.Join(root, "link")} {
		if err := os.Symlink(map[string]string{"exchanged": "/outside", "link": "/data"}[filepath.Base(l)], l); err != nil {
			t.Fatal(err)
		}
	}
	bind := func(src, dst string, options ...string) specs.Mount {
		return specs.Mount{Type: "bind", Source: src, Destination: dst, Options: append(options, "bind")}
	}
	old, fixed := detected{Runtime: "runc", Version: "1.1.5+ds1"}, detected{Runtime: "runc", Version: "1.1.14"}
	for _, row := range []struct {
		name   string
		by     detected
		mounts []specs.Mount
		want   error
	}{
		{"missing", old, []specs.Mount{bind(volume, "/data"), bind(other, "/data/sub")}, errVolumePoint},
		{"missing, deeper", old, []specs.Mount{bind(volume, "/data"), bind(other, "/data/there/sub")}, errVolumePoint},
		{"there, for now", old, []specs.Mount{bind(volume, "/data"), bind(other, "/data/there")}, errVolumePoint},
		{"a link for now", old, []specs.Mount{bind(volume, "/data"), bind(other, "/data/exchanged/sub")}, errVolumePoint},
		{"by a link of the image", old, []specs.Mount{bind(volume, "/data"), bind(other, "/link/sub")}, errVolumePoint},
		{"and out again", old, []specs.Mount{bind(volume, "/data"), bind(other, "/data/there/../../etc")}, errVolumePoint},
		{"over the volume", old, []specs.Mount{bind(volume, "/data"), bind(other, "/data", "ro"), bind(other, "/data/sub")}, nil},
		{"the volume cannot be written", old, []specs.Mount{bind(volume, "/data", "ro"), bind(other, "/data/sub")}, nil},
		{"beside it", old, []specs.Mount{bind(volume, "/data"), bind(other, "/data2")}, nil},
		{"a runc that does it right", fixed, []specs.Mount{bind(volume, "/data"), bind(other, "/data/sub")}, nil},
		{"crun", detected{Runtime: "crun", Version: "1.8.1"}, []specs.Mount{bind(volume, "/data"), bind(other, "/data/sub")}, nil},
	} {
		err := checkVolumePoints(&specs.Spec{Root: &specs.Root{Path: root}, Mounts: row.mounts}, row.by)
		if !errors.Is(err, row.want) || (err == nil) != (row.want == nil) {
			t.Errorf("%s: %v, want %v", row.name, err, row.want)
		}
	}
}
