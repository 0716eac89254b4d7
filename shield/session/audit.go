// SPDX-License-Identifier: Apache-2.0

package session

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// event is one line of the audit log. Each line has the MAC of the line before
// it and its own, so no line can be changed, taken out or put in without the
// service's key; how many there are is kept in the sealed store.
type event struct {
	Seq     uint64    `json:"seq"`
	Time    time.Time `json:"time"`
	Client  string    `json:"client"` // fingerprint of its key
	Action  string    `json:"action"`
	Session string    `json:"session,omitempty"`
	Outcome string    `json:"outcome"` // allowed or refused
	Detail  string    `json:"detail,omitempty"`
	Taint   string    `json:"taint,omitempty"`
	Prev    string    `json:"prev"`
	MAC     string    `json:"mac,omitempty"`
}

type audit struct {
	mu   sync.Mutex
	f    logFile
	size int64 // of the whole lines
	key  []byte
	seq  uint64
	last string
	save func(auditEnd) error

	broken error // nothing can be written any more
}

type logFile interface {
	io.Writer
	io.Seeker
	io.Closer
	Sync() error
	Truncate(size int64) error
}

// auditEnd is what the store knows of the log: it has at least this much.
type auditEnd struct {
	Seq uint64 `json:"seq"`
	MAC string `json:"mac"`
}

func (e *event) mac(key []byte) (string, error) {
	c := *e
	c.MAC = ""
	b, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	m := hmac.New(sha256.New, key)
	m.Write(b)
	return hex.EncodeToString(m.Sum(nil)), nil
}

// openAudit checks the log and opens it for appending. A last line that a crash
// cut short is taken off.
func openAudit(name string, key []byte, end auditEnd, save func(auditEnd) error) (*audit, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	last, good, err := checkAudit(f, key, end)
	if err == nil {
		err = f.Truncate(good)
	}
	if err == nil {
		_, err = f.Seek(good, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("audit log %s: %w", name, err)
	}
	return &audit{f: f, size: good, key: key, seq: last.Seq, last: last.MAC, save: save}, nil
}

// checkAudit verifies the chain, and that it is as long as the store remembers.
func checkAudit(r io.Reader, key []byte, end auditEnd) (last auditEnd, good int64, err error) {
	b := bufio.NewReaderSize(r, 1<<16)
	reached := end.Seq == 0
	for {
		line, err := b.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			break // what is in line has no end: it was cut short
		}
		if err != nil {
			return last, good, err
		}
		var e event
		if err := json.Unmarshal(bytes.TrimSpace(line), &e); err != nil {
			return last, good, fmt.Errorf("line %d: %w", last.Seq+1, err)
		}
		want, err := e.mac(key)
		if err != nil {
			return last, good, err
		}
		if !hmac.Equal([]byte(want), []byte(e.MAC)) || e.Seq != last.Seq+1 || e.Prev != last.MAC {
			return last, good, fmt.Errorf("line %d was changed, or lines before it are missing", last.Seq+1)
		}
		last = auditEnd{e.Seq, e.MAC}
		good += int64(len(line))
		if last.Seq == end.Seq {
			if last.MAC != end.MAC {
				return last, good, fmt.Errorf("line %d is not the one that was written", last.Seq)
			}
			reached = true
		}
	}
	if !reached {
		return last, good, fmt.Errorf("has %d lines, at least %d were written: the end was taken off", last.Seq, end.Seq)
	}
	return last, good, nil
}

// cut takes off what lies behind the last whole line.
func (a *audit) cut() error {
	if err := a.f.Truncate(a.size); err != nil {
		return err
	}
	_, err := a.f.Seek(a.size, io.SeekStart)
	return err
}

// write appends an event and makes it durable before anything is answered.
func (a *audit) write(e event) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	e.Seq, e.Prev = a.seq+1, a.last
	mac, err := e.mac(a.key)
	if err != nil {
		return err
	}
	e.MAC = mac
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if a.broken != nil {
		return a.broken
	}
	line = append(line, '\n')
	_, err = a.f.Write(line)
	if err == nil {
		err = a.f.Sync()
	}
	if err != nil {
		// Half a line would break the chain for good: take it off, or write nothing more.
		if terr := a.cut(); terr != nil {
			a.broken = fmt.Errorf("audit log: %w, and what was written of a line cannot be taken off: %w", err, terr)
			return a.broken
		}
		return fmt.Errorf("audit log: %w", err)
	}
	a.size += int64(len(line))
	a.seq, a.last = e.Seq, e.MAC
	return a.save(auditEnd{e.Seq, e.MAC})
}
