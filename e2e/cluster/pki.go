package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"berth.dev/e2e/cluster/node"
)

// users are those who hold a token of the cluster. Each component has a name of its own, so that the audit
// log tells who wrote what. What kube-controller-manager and kube-scheduler may do is in the API server's
// bootstrap policy; the other two may do everything.
var users = []user{
	{"admin", "system:masters"},
	{"kwok", "system:masters"},
	{"system:kube-controller-manager", ""},
	{"system:kube-scheduler", ""},
}

// usersOfNode are those who come with a real node. What the first two may do is in the bootstrap policy.
func usersOfNode(n *node.Node) []user {
	return []user{{n.User(), "system:nodes"}, {node.ProxyUser, ""}, {node.DNSUser, "system:masters"}}
}

type user struct{ name, groups string }

// access is the cluster's keys, certificates and tokens, as files.
type access struct {
	caCert, servingCert, servingKey, serviceAccountKey, tokens string
	// With these the API server reaches kubelets.
	kubeletClientCert, kubeletClientKey string

	caPEM       []byte
	tokenByUser map[string]string
}

// makeAccess writes all keys and tokens into a folder.
func makeAccess(dir string, users []user) (*access, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	a := &access{
		caCert:            filepath.Join(dir, "ca.crt"),
		servingCert:       filepath.Join(dir, "apiserver.crt"),
		servingKey:        filepath.Join(dir, "apiserver.key"),
		serviceAccountKey: filepath.Join(dir, "service-account.key"),
		tokens:            filepath.Join(dir, "tokens.csv"),
		kubeletClientCert: filepath.Join(dir, "kubelet-client.crt"),
		kubeletClientKey:  filepath.Join(dir, "kubelet-client.key"),
		tokenByUser:       map[string]string{},
	}
	if err := a.writeCertificates(); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if err := writeKey(a.serviceAccountKey, key); err != nil {
		return nil, err
	}
	var lines strings.Builder
	for _, user := range users {
		secret := make([]byte, 16)
		_, _ = rand.Read(secret) // never fails
		token := hex.EncodeToString(secret)
		a.tokenByUser[user.name] = token
		fmt.Fprintf(&lines, "%s,%s,%s,%q\n", token, user.name, user.name, user.groups)
	}
	return a, os.WriteFile(a.tokens, []byte(lines.String()), 0o600)
}

// writeCertificates makes an authority, the API server's certificate for the loopback address and for the
// addresses that a real node's pods use, and the one that it shows to kubelets.
func (a *access) writeCertificates() error {
	now := time.Now()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	ca := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "berth-cluster"},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.AddDate(1, 0, 0),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return err
	}
	a.caPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})
	if err := os.WriteFile(a.caCert, a.caPEM, 0o600); err != nil {
		return err
	}
	issue := func(certificate *x509.Certificate, certFile, keyFile string) error {
		certificate.NotBefore, certificate.NotAfter = ca.NotBefore, ca.NotAfter
		certificate.KeyUsage = x509.KeyUsageDigitalSignature
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		der, err := x509.CreateCertificate(rand.Reader, certificate, ca, key.Public(), caKey)
		if err != nil {
			return err
		}
		text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
		if err := os.WriteFile(certFile, text, 0o600); err != nil {
			return err
		}
		return writeKey(keyFile, key)
	}
	err = issue(&x509.Certificate{
		SerialNumber: big.NewInt(2),
		Subject:      pkix.Name{CommonName: "kube-apiserver"},
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{
			"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
		},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.ParseIP(node.APIService), net.ParseIP(node.Address)},
	}, a.servingCert, a.servingKey)
	if err != nil {
		return err
	}
	return issue(&x509.Certificate{
		SerialNumber: big.NewInt(3),
		Subject:      pkix.Name{CommonName: "kube-apiserver-kubelet-client", Organization: []string{"system:masters"}},
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, a.kubeletClientCert, a.kubeletClientKey)
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
}

// writeKubeconfig writes a kubeconfig with which one of the users reaches the API server.
func (a *access) writeKubeconfig(path, server, user string) error {
	config := clientcmdapi.NewConfig()
	config.Clusters["berth"] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: a.caPEM}
	config.AuthInfos[user] = &clientcmdapi.AuthInfo{Token: a.tokenByUser[user]}
	config.Contexts["berth"] = &clientcmdapi.Context{Cluster: "berth", AuthInfo: user}
	config.CurrentContext = "berth"
	return clientcmd.WriteToFile(*config, path)
}
