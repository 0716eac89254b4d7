// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package shim

import (
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// tables answers the shim's questions for the sites of files. Each question is one
// message that carries the file and the socket to answer on.
type tables struct {
	mu    sync.Mutex
	known map[fileID]*table
}

type fileID struct {
	dev, ino     uint64
	size         int64
	mtime, ctime unix.Timespec
}

type table struct {
	once  sync.Once
	bytes []byte
}

// maxTables bounds the memory of a run that loads ever new files.
const maxTables = 4096

// serve answers until the socket closes.
func (s *tables) serve(conn *net.UnixConn) {
	defer conn.Close()
	buf, oob := make([]byte, 64), make([]byte, unix.CmsgSpace(8*4))
	for {
		_, n, _, _, err := conn.ReadMsgUnix(buf, oob)
		if err != nil {
			return
		}
		msgs, err := unix.ParseSocketControlMessage(oob[:n])
		if err != nil || len(msgs) == 0 {
			if n == 0 {
				return
			}
			continue
		}
		fds, err := unix.ParseUnixRights(&msgs[0])
		if err != nil {
			continue
		}
		if len(fds) != 2 {
			for _, fd := range fds {
				unix.Close(fd)
			}
			continue
		}
		go func() {
			file, reply := os.NewFile(uintptr(fds[0]), "code"), os.NewFile(uintptr(fds[1]), "reply")
			defer file.Close()
			defer reply.Close()
			// The asker takes an end without an answer for "no table".
			_, _ = reply.Write(s.answer(file))
		}()
	}
}

func (s *tables) answer(f *os.File) []byte {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return encodeSites(nil)
	}
	id := fileID{st.Dev, st.Ino, st.Size, st.Mtim, st.Ctim}
	s.mu.Lock()
	if s.known == nil || len(s.known) >= maxTables {
		s.known = map[fileID]*table{}
	}
	t := s.known[id]
	if t == nil {
		t = &table{}
		s.known[id] = t
	}
	s.mu.Unlock()
	t.once.Do(func() {
		sites, err := findSites(f)
		if err != nil {
			sites = Sites{} // not code that we know: the signal catches its calls
		}
		t.bytes = encodeSites(sites.Rewrite)
	})
	return t.bytes
}
