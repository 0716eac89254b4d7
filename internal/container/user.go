// SPDX-License-Identifier: Apache-2.0

package container

import (
	"fmt"
	"io"
	"os"

	securejoin "github.com/cyphar/filepath-securejoin/pathrs-lite"
	"github.com/moby/sys/user"
)

// execUser is who a process runs as.
type execUser struct {
	uid, gid int
	groups   []uint32
	home     string
}

// maxAccounts bounds /etc/passwd and /etc/group of an image, in bytes.
const maxAccounts = 4 << 20

// lookupUser finds USER[:GROUP], names or numbers, in the accounts of a root.
func lookupUser(rootfs, spec string) (execUser, error) {
	passwd, err := accounts(rootfs, "/etc/passwd")
	if err != nil {
		return execUser{}, err
	}
	defer passwd.Close()
	group, err := accounts(rootfs, "/etc/group")
	if err != nil {
		return execUser{}, err
	}
	defer group.Close()
	u, err := user.GetExecUser(spec, &user.ExecUser{Home: "/"}, io.LimitReader(passwd, maxAccounts), io.LimitReader(group, maxAccounts))
	if err != nil {
		return execUser{}, fmt.Errorf("user %q: %w", spec, err)
	}
	out := execUser{uid: u.Uid, gid: u.Gid, home: u.Home}
	for _, g := range u.Sgids {
		out.groups = append(out.groups, uint32(g))
	}
	return out, nil
}

// accounts opens a file of the root, wherever its symbolic links lead, inside
// the root. One that is not there is empty.
func accounts(rootfs, name string) (io.ReadCloser, error) {
	h, err := securejoin.OpenInRoot(rootfs, name)
	if err != nil {
		return io.NopCloser(eof{}), nil
	}
	defer h.Close()
	fi, err := h.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%s of the root file system is not a file", name)
	}
	return securejoin.Reopen(h, os.O_RDONLY)
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }
