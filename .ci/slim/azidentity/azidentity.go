// Package azidentity stands for that of the client of Azure in the build of the demo.
package azidentity

import (
	"crypto"
	"crypto/x509"
	"errors"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
)

var errNone = errors.New("the demo is built without the client of Azure")

// ClientID is the name of an identity.
type ClientID string

// The options of credentials.
type (
	ManagedIdentityCredentialOptions struct {
		ClientOptions azcore.ClientOptions
		ID            ClientID
	}
	WorkloadIdentityCredentialOptions struct {
		ClientOptions                     azcore.ClientOptions
		ClientID, TenantID, TokenFilePath string
	}
	ClientSecretCredentialOptions struct{ ClientOptions azcore.ClientOptions }
	DefaultAzureCredentialOptions struct {
		ClientOptions azcore.ClientOptions
		TenantID      string
	}
	ClientCertificateCredentialOptions struct {
		ClientOptions        azcore.ClientOptions
		SendCertificateChain bool
	}
)

// NewManagedIdentityCredential refuses.
func NewManagedIdentityCredential(*ManagedIdentityCredentialOptions) (azcore.TokenCredential, error) {
	return nil, errNone
}

// NewWorkloadIdentityCredential refuses.
func NewWorkloadIdentityCredential(*WorkloadIdentityCredentialOptions) (azcore.TokenCredential, error) {
	return nil, errNone
}

// NewClientSecretCredential refuses.
func NewClientSecretCredential(_, _, _ string, _ *ClientSecretCredentialOptions) (azcore.TokenCredential, error) {
	return nil, errNone
}

// NewDefaultAzureCredential refuses.
func NewDefaultAzureCredential(*DefaultAzureCredentialOptions) (azcore.TokenCredential, error) {
	return nil, errNone
}

// NewClientCertificateCredential refuses.
func NewClientCertificateCredential(_, _ string, _ []*x509.Certificate, _ crypto.PrivateKey, _ *ClientCertificateCredentialOptions) (azcore.TokenCredential, error) {
	return nil, errNone
}

// ParseCertificates refuses.
func ParseCertificates([]byte, []byte) ([]*x509.Certificate, crypto.PrivateKey, error) {
	return nil, nil, errNone
}
