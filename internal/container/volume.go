// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/palisade-sec/palisade/internal/engine/oci"
	"github.com/palisade-sec/palisade/internal/state"
)

// volume is a file or folder of the host that a container sees.
type volume struct {
	src, dst string
	readOnly bool
	// relabel is "Z" for a label of the container's own, "z" for one that all
	// containers may use.
	relabel string
	// mount says that src is a block device or the image of a file system, which
	// is mounted for this container alone.
	mount bool
}

// ErrVolume is the error of a volume that cannot be.
var ErrVolume = errors.New("want SRC:DST[:ro|:rw|:Z|:z|:mount] with an existing SRC and an absolute DST")

func parseVolume(text string) (volume, error) {
	bad := func(why string) (volume, error) {
		return volume{}, fmt.Errorf("volume %q: %s: %w", text, why, ErrVolume)
	}
	parts := strings.Split(text, ":")
	if len(parts) < 2 || len(parts) > 3 || parts[0] == "" {
		return bad("not of this form")
	}
	v := volume{src: parts[0], dst: path.Clean(parts[1])}
	if !strings.HasPrefix(parts[1], "/") || v.dst == "/" {
		return bad("the destination is not an absolute path below the root")
	}
	if !strings.ContainsRune(v.src, '/') && v.src != "." && v.src != ".." {
		return bad("the source is the name of a volume, and there are only paths here (write ./" + v.src + ")")
	}
	if len(parts) == 3 {
		for _, opt := range strings.Split(parts[2], ",") {
			switch opt {
			case "ro":
				v.readOnly = true
			case "rw":
			case "mount":
				v.mount = true
			case "Z", "z":
				if v.relabel != "" && v.relabel != opt {
					return bad("Z and z exclude each other")
				}
				v.relabel = opt
			default:
				return bad(fmt.Sprintf("unknown option %q", opt))
			}
		}
	}
	abs, err := filepath.Abs(v.src)
	if err != nil {
		return bad(err.Error())
	}
	if v.src, err = filepath.EvalSymlinks(abs); err != nil {
		return bad(err.Error())
	}
	return v, nil
}

func parseVolumes(texts []string) ([]volume, error) {
	var out []volume
	for _, t := range texts {
		v, err := parseVolume(t)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(out, func(o volume) bool { return o.dst == v.dst }) {
			return nil, fmt.Errorf("volume %q: %s is given twice: %w", t, v.dst, ErrVolume)
		}
		out = append(out, v)
	}
	return out, nil
}

func (v volume) mountpoint() specs.Mount {
	// Set-user-ID programs and devices of the host stay without effect.
	opts := []string{"rbind", "rprivate", "nosuid", "nodev"}
	if v.readOnly {
		opts = append(opts, "ro")
	}
	return specs.Mount{Destination: v.dst, Type: "bind", Source: v.src, Options: opts}
}

// checkReach refuses a root or a volume from which a container could reach the state
// folder.
func checkReach(dir *state.Dir, rootfs string, volumes []volume) error {
	s := specs.Spec{}
	if rootfs != "" {
		abs, err := filepath.Abs(rootfs)
		if err != nil {
			return err
		}
		s.Root = &specs.Root{Path: abs}
	}
	for _, v := range volumes {
		s.Mounts = append(s.Mounts, v.mountpoint())
	}
	return oci.CheckStateReach(&s, dir.Path())
}
