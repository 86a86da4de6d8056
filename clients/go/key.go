package dwcp

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
)

const (
	mostKeyBytes       = 64 << 10
	mostSignatureBytes = 1 << 10
)

// ReadPublicKey reads the public key that `dwcp-learner keys generate` made (dwcp-verify-key.pem), for Options.PublicKey.
func ReadPublicKey(path string) (ed25519.PublicKey, error) {
	content, err := readBounded(path, mostKeyBytes)
	if err != nil {
		return nil, fmt.Errorf("dwcp: the public key cannot be read: %w", err)
	}
	block, _ := pem.Decode(content)
	switch {
	case block == nil:
		return nil, fmt.Errorf("dwcp: %s holds no key in PEM form; `dwcp-learner keys generate` makes one", path)
	case bytes.Contains(content, []byte("PRIVATE KEY")):
		return nil, fmt.Errorf("dwcp: %s is a private key; give the public one (dwcp-verify-key.pem), and keep the private one where it signs", path)
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("dwcp: %s holds no public key (%w); `dwcp-learner keys generate` makes one", path, err)
	}
	key, ok := parsed.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("dwcp: %s is a key of another type (%T), an Ed25519 key is needed; `dwcp-learner keys generate` makes one", path, parsed)
	}
	return key, nil
}

// signatureProblem says why the line of a signature file does not vouch for the content; it is empty if it does.
func signatureProblem(key ed25519.PublicKey, content, line []byte) string {
	signature, err := base64.StdEncoding.Strict().DecodeString(string(bytes.TrimSuffix(line, []byte("\n"))))
	switch {
	case err != nil:
		return "is not base64"
	case len(signature) != ed25519.SignatureSize:
		return fmt.Sprintf("holds %d bytes instead of %d", len(signature), ed25519.SignatureSize)
	case !ed25519.Verify(key, content, signature):
		return "does not fit: what it signs was changed, or another key has signed it"
	}
	return ""
}
