// SPDX-License-Identifier: Apache-2.0

package session

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// Errors of the store.
var (
	errExists      = errors.New("session exists")
	errNotFound    = errors.New("no such session")
	errPredecessor = errors.New("predecessor is not the present session: it was changed in the meantime")
	errStale       = errors.New("generation does not go up")
	errWrongKey    = errors.New("wrong key for this store")
	errCorrupt     = errors.New("store corrupted")
)

// record is a session as it is kept.
type record struct {
	Session Session           `json:"session"`
	Hash    string            `json:"hash"`
	Secrets map[string][]byte `json:"secrets"` // values, generated ones included
	Roots   map[string]string `json:"roots"`   // by volume, as last reported
	Created time.Time         `json:"created"`
	Updated time.Time         `json:"updated"`
	Creator string            `json:"creator"`
}

// store keeps records in bbolt, each value sealed: under a key of its own made
// from a random salt, bound to the bucket and name it is stored under. Names are
// kept as MACs. The file shows how many sessions there are and when they change.
type store struct {
	db   *bolt.DB
	prk  []byte
	name []byte // key of the MACs of names
}

var (
	bucketMeta     = []byte("meta")
	bucketSessions = []byte("sessions")
	keySalt        = []byte("salt")
	keyCheck       = []byte("check")
	keyTLS         = []byte("tls")
	keyAudit       = []byte("audit")
)

func openStore(file string, key []byte) (_ *store, err error) {
	db, err := bolt.Open(file, 0o600, &bolt.Options{Timeout: time.Second})
	if err != nil {
		if errors.Is(err, berrors.ErrTimeout) {
			return nil, fmt.Errorf("%s: is in use by another service", file)
		}
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	defer func() {
		if err != nil {
			db.Close()
		}
	}()
	s := &store{db: db}
	err = db.Update(func(tx *bolt.Tx) error {
		meta, err := tx.CreateBucketIfNotExists(bucketMeta)
		if err != nil {
			return err
		}
		if _, err := tx.CreateBucketIfNotExists(bucketSessions); err != nil {
			return err
		}
		salt := meta.Get(keySalt)
		if salt == nil {
			salt = make([]byte, 32)
			if _, err := rand.Read(salt); err != nil {
				return err
			}
			if err := meta.Put(keySalt, salt); err != nil {
				return err
			}
		}
		if s.prk, err = hkdf.Extract(sha256.New, key, salt); err != nil {
			return err
		}
		commit, err := s.derive("palisade session store 1 commitment")
		if err != nil {
			return err
		}
		if s.name, err = s.derive("palisade session store 1 names"); err != nil {
			return err
		}
		if have := meta.Get(keyCheck); have == nil {
			return meta.Put(keyCheck, commit)
		} else if subtle.ConstantTimeCompare(have, commit) != 1 {
			return errWrongKey
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return s, nil
}

func (s *store) derive(label string) ([]byte, error) {
	return hkdf.Expand(sha256.New, s.prk, label, 32)
}

func (s *store) close() error {
	clear(s.prk)
	clear(s.name)
	return s.db.Close()
}

const sealSalt = 32

// seal encrypts a value for one place. The key is derived from a fresh salt of
// 256 bits, so the nonce can stay zero.
func (s *store) seal(place, plain []byte) ([]byte, error) {
	out := make([]byte, sealSalt, sealSalt+len(plain)+16)
	if _, err := rand.Read(out); err != nil {
		return nil, err
	}
	a, err := s.aead(out)
	if err != nil {
		return nil, err
	}
	return a.Seal(out, make([]byte, a.NonceSize()), plain, place), nil
}

func (s *store) open(place, box []byte) ([]byte, error) {
	if len(box) < sealSalt {
		return nil, errCorrupt
	}
	a, err := s.aead(box[:sealSalt])
	if err != nil {
		return nil, err
	}
	plain, err := a.Open(nil, make([]byte, a.NonceSize()), box[sealSalt:], place)
	if err != nil {
		return nil, errCorrupt
	}
	return plain, nil
}

func (s *store) aead(salt []byte) (cipher.AEAD, error) {
	k, err := hkdf.Expand(sha256.New, s.prk, "palisade session store 1 value"+string(salt), 32)
	if err != nil {
		return nil, err
	}
	b, err := aes.NewCipher(k)
	clear(k)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(b)
}

func (s *store) mac(name string) []byte {
	m := hmac.New(sha256.New, s.name)
	io.WriteString(m, name)
	return m.Sum(nil)
}

func place(bucket, key []byte) []byte { return append(append(append([]byte{}, bucket...), 0), key...) }

func (s *store) put(tx *bolt.Tx, bucket, key []byte, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	box, err := s.seal(place(bucket, key), b)
	clear(b)
	if err != nil {
		return err
	}
	return tx.Bucket(bucket).Put(key, box)
}

func (s *store) get(tx *bolt.Tx, bucket, key []byte, v any) error {
	box := tx.Bucket(bucket).Get(key)
	if box == nil {
		return errNotFound
	}
	b, err := s.open(place(bucket, key), box)
	if err != nil {
		return err
	}
	defer clear(b)
	return json.Unmarshal(b, v)
}

// session reads one record.
func (s *store) session(name string) (r record, err error) {
	err = s.db.View(func(tx *bolt.Tx) error { return s.get(tx, bucketSessions, s.mac(name), &r) })
	if err == nil && r.Session.Name != name {
		err = errCorrupt
	}
	return r, err
}

// list reads all records.
func (s *store) list() (out []record, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketSessions).ForEach(func(k, _ []byte) error {
			var r record
			if err := s.get(tx, bucketSessions, k, &r); err != nil {
				return err
			}
			out = append(out, r)
			return nil
		})
	})
	return out, err
}

// create stores a new session.
func (s *store) create(n *Session, creator string, now time.Time) (r record, err error) {
	if n.Predecessor != "" {
		return r, errPredecessor
	}
	r = record{Session: *n, Hash: n.Hash(), Created: now, Updated: now, Creator: creator}
	if err := r.fill(nil); err != nil {
		return r, err
	}
	err = s.db.Update(func(tx *bolt.Tx) error {
		k := s.mac(n.Name)
		if tx.Bucket(bucketSessions).Get(k) != nil {
			return errExists
		}
		return s.put(tx, bucketSessions, k, &r)
	})
	return r, err
}

// update replaces a session by one that names it as its predecessor. allowed is
// asked within the transaction.
func (s *store) update(n *Session, allowed func(*record) error, now time.Time) (r record, err error) {
	err = s.db.Update(func(tx *bolt.Tx) error {
		var old record
		k := s.mac(n.Name)
		if err := s.get(tx, bucketSessions, k, &old); err != nil {
			return err
		}
		if err := allowed(&old); err != nil {
			return err
		}
		if n.Predecessor != old.Hash {
			return errPredecessor
		}
		r = record{Session: *n, Hash: n.Hash(), Created: old.Created, Updated: now, Creator: old.Creator}
		if err := r.fill(&old); err != nil {
			return err
		}
		return s.put(tx, bucketSessions, k, &r)
	})
	return r, err
}

// fill gives a new record its secrets and roots: generated secrets and the roots
// of volumes stay what they were.
func (r *record) fill(old *record) error {
	r.Secrets, r.Roots = map[string][]byte{}, map[string]string{}
	var had map[string]Secret
	if old != nil {
		had = map[string]Secret{}
		for _, x := range old.Session.Secrets {
			had[x.Name] = x
		}
	}
	for _, x := range r.Session.Secrets {
		if x.Generate > 0 {
			if had[x.Name] == x && len(old.Secrets[x.Name]) == x.Generate {
				r.Secrets[x.Name] = old.Secrets[x.Name]
				continue
			}
			b := make([]byte, x.Generate)
			if _, err := rand.Read(b); err != nil {
				return err
			}
			r.Secrets[x.Name] = b
			continue
		}
		b, err := x.bytes()
		if err != nil {
			return err
		}
		r.Secrets[x.Name] = b
	}
	for _, v := range r.Session.Volumes {
		root := v.Root
		if old != nil {
			if was := old.Roots[v.Name]; was != "" {
				if root == "" {
					root = was
				} else if err := goesUp(was, root); err != nil {
					return fmt.Errorf("volume %s: %w", v.Name, err)
				}
			}
		}
		r.Roots[v.Name] = root
	}
	return nil
}

// goesUp refuses a root that is older than the known one, and another one of the
// same generation.
func goesUp(was, is string) error {
	a, err := ParseRoot(was)
	if err != nil {
		return err
	}
	b, err := ParseRoot(is)
	if err != nil {
		return err
	}
	if b.Generation < a.Generation || b.Generation == a.Generation && b.Digest != a.Digest {
		return fmt.Errorf("%w: %d is known, %d was given", errStale, a.Generation, b.Generation)
	}
	return nil
}

// advance notes a volume's new root.
func (s *store) advance(name, volume, root string, allowed func(*record) error) error {
	return s.db.Update(func(tx *bolt.Tx) error {
		var r record
		k := s.mac(name)
		if err := s.get(tx, bucketSessions, k, &r); err != nil {
			return err
		}
		if err := allowed(&r); err != nil {
			return err
		}
		was, ok := r.Roots[volume]
		if !ok {
			return fmt.Errorf("%w: no volume %s in session %s", errNotFound, volume, name)
		}
		if was != "" {
			if err := goesUp(was, root); err != nil {
				return err
			}
			if was == root {
				return nil
			}
		} else if _, err := ParseRoot(root); err != nil {
			return err
		}
		r.Roots[volume] = root
		return s.put(tx, bucketSessions, k, &r)
	})
}

// secret reads or makes a value of the service itself.
func (s *store) secret(key []byte, make func() ([]byte, error)) (v []byte, err error) {
	err = s.db.Update(func(tx *bolt.Tx) error {
		err := s.get(tx, bucketMeta, key, &v)
		if !errors.Is(err, errNotFound) {
			return err
		}
		if v, err = make(); err != nil {
			return err
		}
		return s.put(tx, bucketMeta, key, bytes.Clone(v))
	})
	return v, err
}
