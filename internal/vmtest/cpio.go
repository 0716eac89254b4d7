// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vmtest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
)

// cpio collects the entries of an initramfs and writes them in the "newc"
// format. Parents of entries are made by themselves.
//
// Source: Documentation/driver-api/early-userspace/buffer-format.rst
type cpio struct {
	entries []entry
	made    map[string]bool
}

type entry struct {
	name string
	mode uint32
	data []byte
	host string // file to read when data is nil
}

const (
	cpioDir  = 0o040000
	cpioFile = 0o100000
	cpioLink = 0o120000
)

func (c *cpio) put(e entry) {
	e.name = strings.TrimPrefix(path.Clean(e.name), "/")
	if e.name == "" || e.name == "." {
		return
	}
	if c.made == nil {
		c.made = map[string]bool{}
	}
	if dir := path.Dir(e.name); dir != "." && !c.made[dir] {
		c.put(entry{name: dir, mode: cpioDir | 0o755})
	}
	if e.mode&0o170000 == cpioDir && c.made[e.name] {
		return
	}
	c.made[e.name] = true
	c.entries = append(c.entries, e)
}

func (c *cpio) dir(name string, perm fs.FileMode) {
	c.put(entry{name: name, mode: cpioDir | uint32(perm)})
}

func (c *cpio) file(name string, perm fs.FileMode, host string) {
	c.put(entry{name: name, mode: cpioFile | uint32(perm), host: host})
}

func (c *cpio) data(name string, perm fs.FileMode, b []byte) {
	c.put(entry{name: name, mode: cpioFile | uint32(perm), data: b})
}

func (c *cpio) symlink(name, target string) {
	c.put(entry{name: name, mode: cpioLink | 0o777, data: []byte(target)})
}

func (c *cpio) writeTo(file string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	for i, e := range c.entries {
		var body io.Reader = bytes.NewReader(e.data)
		size := int64(len(e.data))
		if e.host != "" {
			h, err := os.Open(e.host)
			if err != nil {
				return err
			}
			info, err := h.Stat()
			if err != nil {
				h.Close()
				return err
			}
			body, size = io.LimitReader(h, info.Size()), info.Size()
			err = writeEntry(w, i+1, e.name, e.mode, size, body)
			h.Close()
			if err != nil {
				return err
			}
			continue
		}
		if err := writeEntry(w, i+1, e.name, e.mode, size, body); err != nil {
			return err
		}
	}
	if err := writeEntry(w, 0, "TRAILER!!!", 0, 0, bytes.NewReader(nil)); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return f.Close()
}

func writeEntry(w io.Writer, ino int, name string, mode uint32, size int64, body io.Reader) error {
	if size >= 1<<32 {
		return fmt.Errorf("vmtest: %s is too large for an initramfs", name)
	}
	nlink := 1
	// 110 bytes of header, then the name with its NUL, each padded to 4.
	head := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		ino, mode, 0, 0, nlink, 0, size, 0, 0, 0, 0, len(name)+1, 0, name)
	if _, err := io.WriteString(w, head+strings.Repeat("\x00", -len(head)&3)); err != nil {
		return err
	}
	if n, err := io.Copy(w, body); err != nil {
		return err
	} else if n != size {
		return fmt.Errorf("vmtest: %s changed while it was read", name)
	}
	_, err := io.WriteString(w, strings.Repeat("\x00", int(-size&3)))
	return err
}
