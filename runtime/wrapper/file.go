// SPDX-License-Identifier: Apache-2.0

package wrapper

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/caps"
	"github.com/palisade-sec/palisade/policy"
	"github.com/palisade-sec/palisade/runtime/oci"
)

type (
	specsSpec      = specs.Spec
	specsNamespace = specs.LinuxNamespace
)

// fileMeta is what of a file survives its replacement.
type fileMeta struct {
	mode     uint32
	uid, gid int
}

// readFile reads a file that an engine wrote, and refuses links and what is no
// file.
func readFile(path string) ([]byte, fileMeta, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fileMeta{}, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fileMeta{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fileMeta{}, fmt.Errorf("%s is not a file", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, oci.MaxConfig+1))
	if err == nil && len(b) > oci.MaxConfig {
		err = fmt.Errorf("%s has more than %d bytes", path, oci.MaxConfig)
	}
	return b, fileMeta{st.Mode & 0o7777, int(st.Uid), int(st.Gid)}, err
}

// replaceFile writes a file anew, whole or not at all, with the mode and the
// owner that it had: engines and tests rely on both.
func replaceFile(path string, data []byte, meta fileMeta) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".palisade-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err := f.Chown(meta.uid, meta.gid); err != nil {
		return err
	}
	if err := unix.Fchmod(int(f.Fd()), meta.mode); err != nil {
		return &os.PathError{Op: "chmod", Path: f.Name(), Err: err}
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func allowedCap(p policy.Policy, name string) bool {
	c, err := caps.Parse(name)
	return err == nil && p.Capabilities.Has(c)
}
