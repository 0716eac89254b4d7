// SPDX-License-Identifier: Apache-2.0

// Package image unpacks container images into folders.
//
// An image comes as an OCI layout (a folder), an OCI archive or a docker archive
// (tar files). It is unpacked once and kept under the hash of its configuration;
// a folder appears under that name only when it is whole. Images are hostile
// input: a layer is read once without writing anything, and refused as a whole
// if one of its entries is.
package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/sys/unix"
)

// Image is an unpacked image.
type Image struct {
	// Root is the folder with the root file system, shared by all containers of
	// the image: it must not be written to.
	Root       string
	Env        []string
	Entrypoint []string
	Cmd        []string
	Workdir    string
	User       string
}

// ErrFormat says that a file or folder is no image of a known form.
var ErrFormat = errors.New("neither an OCI layout, an OCI archive nor a docker archive")

// Load unpacks the image at source below store, unless that has been done, and
// returns it. Concurrent calls, of other processes too, wait for each other.
func Load(store, source string) (Image, error) {
	lock, err := os.OpenFile(filepath.Join(store, "lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return Image{}, err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return Image{}, &fs.PathError{Op: "lock", Path: lock.Name(), Err: err}
	}
	if err := sweep(store); err != nil {
		return Image{}, err
	}
	tmp, err := os.MkdirTemp(store, newPrefix)
	if err != nil {
		return Image{}, err
	}
	defer os.RemoveAll(tmp)
	img, err := open(source, tmp)
	if err != nil {
		return Image{}, fmt.Errorf("image %s: %w", source, err)
	}
	digest, err := img.ConfigName()
	if err != nil {
		return Image{}, fmt.Errorf("image %s: %w", source, err)
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		return Image{}, fmt.Errorf("image %s: %w", source, err)
	}
	if cfg.OS != "" && cfg.OS != "linux" || cfg.Architecture != "" && cfg.Architecture != runtime.GOARCH {
		return Image{}, fmt.Errorf("image %s: it is for %s/%s, and this is linux/%s", source, cfg.OS, cfg.Architecture, runtime.GOARCH)
	}
	final := filepath.Join(store, digest.Hex)
	if _, err := os.Lstat(final); errors.Is(err, fs.ErrNotExist) {
		whole := filepath.Join(tmp, "image")
		if err := unpack(img, filepath.Join(whole, "rootfs")); err != nil {
			return Image{}, fmt.Errorf("image %s: %w", source, err)
		}
		if err := os.Rename(whole, final); err != nil {
			return Image{}, err
		}
	} else if err != nil {
		return Image{}, err
	}
	return Image{
		Root: filepath.Join(final, "rootfs"), Env: cfg.Config.Env, Entrypoint: cfg.Config.Entrypoint,
		Cmd: cfg.Config.Cmd, Workdir: cfg.Config.WorkingDir, User: cfg.Config.User,
	}, nil
}

const newPrefix = ".new-"

// sweep removes what killed calls have left; nobody else works while we have the
// lock.
func sweep(store string) error {
	entries, err := os.ReadDir(store)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), newPrefix) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(store, e.Name())))
		}
	}
	return err
}

// Prune removes all unpacked images that keep does not want, and returns their
// names.
func Prune(store string, keep func(root string) bool) ([]string, error) {
	lock, err := os.OpenFile(filepath.Join(store, "lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(store)
	if err != nil {
		return nil, err
	}
	removed := []string{}
	errs := []error{sweep(store)}
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") || keep(filepath.Join(store, e.Name(), "rootfs")) {
			continue
		}
		// Out of sight first: a killed removal must not leave half an image.
		old := filepath.Join(store, newPrefix+e.Name())
		err := os.Rename(filepath.Join(store, e.Name()), old)
		if err == nil {
			removed = append(removed, e.Name())
			err = os.RemoveAll(old)
		}
		errs = append(errs, err)
	}
	return removed, errors.Join(errs...)
}

// open finds out what source is.
func open(source, tmp string) (v1.Image, error) {
	fi, err := os.Stat(source)
	if err != nil {
		return nil, err
	}
	if fi.IsDir() {
		return openLayout(source)
	}
	if !fi.Mode().IsRegular() {
		return nil, ErrFormat
	}
	kind, err := archiveKind(source)
	if err != nil {
		return nil, err
	}
	if kind == "oci" {
		dir := filepath.Join(tmp, "layout")
		if err := unpackArchive(source, dir); err != nil {
			return nil, err
		}
		return openLayout(dir)
	}
	return tarball.ImageFromPath(source, nil)
}

// archiveKind looks for the file that tells what an archive is.
func archiveKind(source string) (string, error) {
	f, err := os.Open(source)
	if err != nil {
		return "", err
	}
	defer f.Close()
	tr := tar.NewReader(f)
	kind := ""
	for range maxEntries {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return "", fmt.Errorf("%w: %w", ErrFormat, err)
		}
		switch path.Clean(h.Name) {
		case "manifest.json":
			return "docker", nil // both can be there; this one has what is needed
		case "oci-layout":
			kind = "oci"
		}
	}
	if kind == "" {
		return "", ErrFormat
	}
	return kind, nil
}

// unpackArchive writes the files of an OCI archive, and nothing else that may be
// in it.
func unpackArchive(source, dir string) error {
	f, err := os.Open(source)
	if err != nil {
		return err
	}
	defer f.Close()
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o700); err != nil {
		return err
	}
	total := int64(0)
	for tr := tar.NewReader(f); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		name := path.Clean(h.Name)
		hash, isBlob := strings.CutPrefix(name, "blobs/sha256/")
		if h.Typeflag != tar.TypeReg || !(name == "oci-layout" || name == "index.json" || isBlob && isHash(hash)) {
			continue
		}
		if total += h.Size; total > maxBytes {
			return fmt.Errorf("more than %d bytes: %w", int64(maxBytes), ErrTooLarge)
		}
		out, err := os.OpenFile(filepath.Join(dir, filepath.FromSlash(name)), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, tr)
		if err := errors.Join(err, out.Close()); err != nil {
			return err
		}
	}
}

func isHash(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == sha256.Size
}

// openLayout picks the image for this machine from an OCI layout.
func openLayout(dir string) (v1.Image, error) {
	if _, err := os.Stat(filepath.Join(dir, "oci-layout")); err != nil {
		return nil, ErrFormat
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, err
	}
	return pick(index, 0)
}

// maxNesting bounds indexes inside indexes.
const maxNesting = 4

func pick(index v1.ImageIndex, depth int) (v1.Image, error) {
	if depth > maxNesting {
		return nil, errors.New("indexes are nested too deep")
	}
	m, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	var fits []v1.Descriptor
	for _, d := range m.Manifests {
		if p := d.Platform; p != nil && (p.OS != "linux" || p.Architecture != runtime.GOARCH) {
			continue
		}
		if d.MediaType.IsImage() || d.MediaType.IsIndex() {
			fits = append(fits, d)
		}
	}
	switch len(fits) {
	case 0:
		return nil, fmt.Errorf("no image for linux/%s among %d", runtime.GOARCH, len(m.Manifests))
	case 1:
	default:
		return nil, fmt.Errorf("%d images for linux/%s: a layout of one image is wanted", len(fits), runtime.GOARCH)
	}
	if fits[0].MediaType.IsIndex() {
		inner, err := index.ImageIndex(fits[0].Digest)
		if err != nil {
			return nil, err
		}
		return pick(inner, depth+1)
	}
	return index.Image(fits[0].Digest)
}

// maxLayers bounds the layers of an image; engines stop at 127.
const maxLayers = 512

// unpack writes all layers into a new folder at root.
func unpack(img v1.Image, root string) error {
	if err := checkConfig(img); err != nil {
		return err
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	if len(layers) > maxLayers {
		return fmt.Errorf("%d layers: %w", len(layers), ErrTooLarge)
	}
	// The configuration, whose hash has been checked, says what is in the layers;
	// a layer's own word would be its content's.
	cfg, err := img.ConfigFile()
	if err != nil {
		return err
	}
	hashes := cfg.RootFS.DiffIDs
	if len(hashes) != len(layers) {
		return fmt.Errorf("%d layers, and the configuration tells of %d", len(layers), len(hashes))
	}
	// All layers are looked at before the first byte is written.
	plans := make([]plan, len(layers))
	var b budget
	for i, l := range layers {
		if err := read(l, hashes[i], func(r io.Reader) (err error) {
			plans[i], err = inspect(r, &b)
			return err
		}); err != nil {
			return fmt.Errorf("layer %d of %d: %w", i+1, len(layers), err)
		}
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	f, err := os.Open(root)
	if err != nil {
		return err
	}
	defer f.Close()
	u := &unpacker{root: f}
	defer u.close()
	for i, l := range layers {
		if err := read(l, hashes[i], func(r io.Reader) error { return u.apply(r, plans[i]) }); err != nil {
			return fmt.Errorf("layer %d of %d: %w", i+1, len(layers), err)
		}
	}
	return u.finish()
}

// checkConfig compares the configuration with the hash that it is known by:
// archives come from anywhere.
func checkConfig(img v1.Image) error {
	raw, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	name, err := img.ConfigName()
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(raw); name.Algorithm == "sha256" && hex.EncodeToString(sum[:]) != name.Hex {
		return errors.New("the configuration does not have the hash that it is named by")
	}
	return json.NewDecoder(bytes.NewReader(raw)).Decode(&struct{}{})
}

// read hands a layer's content to fn and checks its hash.
func read(l v1.Layer, want v1.Hash, fn func(io.Reader) error) error {
	if want.Algorithm != "sha256" {
		return fmt.Errorf("hash algorithm %q is not known", want.Algorithm)
	}
	rc, err := l.Uncompressed()
	if err != nil {
		return err
	}
	defer rc.Close()
	h := sha256.New()
	tee := io.TeeReader(rc, h)
	if err := fn(tee); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, tee); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want.Hex {
		return fmt.Errorf("content has the hash %s, not %s", got, want.Hex)
	}
	return nil
}
