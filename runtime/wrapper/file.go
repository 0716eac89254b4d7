// SPDX-License-Identifier: Apache-2.0

package wrapper

import (
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/caps"
	"github.com/palisade-sec/palisade/internal/atomicfile"
	"github.com/palisade-sec/palisade/policy"
	"github.com/palisade-sec/palisade/runtime/oci"
)

type (
	specsSpec      = specs.Spec
	specsNamespace = specs.LinuxNamespace
)

// readFile reads a file that an engine wrote, and refuses links and what is no
// file. What is written in its place has the same mode and owner: engines and
// tests rely on both.
func readFile(path string) (content []byte, as atomicfile.File, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, as, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, as, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, as, fmt.Errorf("%s is not a file", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, oci.MaxConfig+1))
	if err == nil && len(b) > oci.MaxConfig {
		err = fmt.Errorf("%s has more than %d bytes", path, oci.MaxConfig)
	}
	return b, atomicfile.File{Mode: os.FileMode(st.Mode & 0o777), Owner: &atomicfile.Owner{UID: int(st.Uid), GID: int(st.Gid)}, Volatile: true}, err
}

func allowedCap(p policy.Policy, name string) bool {
	c, err := caps.Parse(name)
	return err == nil && p.Capabilities.Has(c)
}
