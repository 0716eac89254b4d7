// SPDX-License-Identifier: Apache-2.0

package session

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"time"
)

// Keys stand for themselves: certificates are self-signed, and the SHA-256 of
// the public key (SubjectPublicKeyInfo) is what is compared. Validity dates and
// names in them mean nothing.

// Fingerprint names a public key.
func Fingerprint(pub crypto.PublicKey) (string, error) {
	b, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// NewKey makes a key for a client or the service, in PEM.
func NewKey() ([]byte, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	b, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return nil, err
	}
	defer clear(b)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: b}), nil
}

// ParseKey reads a key in PEM.
func ParseKey(b []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("no private key in PEM (PKCS#8)")
	}
	defer clear(block.Bytes)
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	s, ok := k.(crypto.Signer)
	if !ok {
		return nil, errors.New("key cannot sign")
	}
	return s, nil
}

// ReadKey reads a key file.
func ReadKey(name string) (crypto.Signer, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	defer clear(b)
	k, err := ParseKey(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return k, nil
}

func certificate(key crypto.Signer) (tls.Certificate, error) {
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "palisade"},
		NotBefore: time.Unix(0, 0), NotAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		DNSNames: []string{"palisade"},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// serverTLS asks every client for a key.
func serverTLS(key crypto.Signer) (*tls.Config, error) {
	c, err := certificate(key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{c},
		// The handshake proves that the client has the key; who it is is decided by
		// its fingerprint, so no chain is asked for.
		ClientAuth: tls.RequireAnyClientCert, SessionTicketsDisabled: true,
		NextProtos: []string{"http/1.1"},
	}, nil
}

// clientTLS accepts the one server whose key has the fingerprint.
func clientTLS(key crypto.Signer, server string) (*tls.Config, error) {
	c, err := certificate(key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{c}, ServerName: "palisade",
		InsecureSkipVerify: true, // replaced by the pin below, which is stricter
		VerifyConnection: func(s tls.ConnectionState) error {
			fp, err := Fingerprint(s.PeerCertificates[0].PublicKey)
			if err != nil {
				return err
			}
			if subtle.ConstantTimeCompare([]byte(fp), []byte(server)) != 1 {
				return fmt.Errorf("server has key %s, expected %s", fp, server)
			}
			return nil
		},
		NextProtos: []string{"http/1.1"},
	}, nil
}

// boundData is what evidence has to bind: the key of the connection over which it
// is presented, and the nonce that the service gave over the same connection.
func boundData(clientKey crypto.PublicKey, nonce []byte) ([64]byte, error) {
	b, err := x509.MarshalPKIXPublicKey(clientKey)
	if err != nil {
		return [64]byte{}, err
	}
	h := sha512.New()
	h.Write([]byte("palisade session evidence v1\x00"))
	sum := sha256.Sum256(b)
	h.Write(sum[:])
	h.Write(nonce)
	return [64]byte(h.Sum(nil)), nil
}
