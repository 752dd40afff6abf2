package output

import (
	"errors"
	"fmt"
	"net/url"

	"github.com/apache/pulsar-client-go/oauth2"
	"github.com/apache/pulsar-client-go/pulsar"
	"github.com/apache/pulsar-client-go/pulsar/auth"
)

// authConfig names how the client shows the broker who it is. At most one method is enabled.
type authConfig struct {
	token  tokenConfig
	oauth2 oauth2Config
}

type tokenConfig struct {
	enabled bool
	token   string
}

type oauth2Config struct {
	enabled        bool
	audience       string
	issuerURL      string
	scope          string
	privateKeyFile string
}

// validate holds the rules that need no file and no network. The config linter has the same ones.
func (c authConfig) validate() error {
	if c.token.enabled && c.oauth2.enabled {
		return errors.New("auth: token and oauth2 are both enabled, enable one of them")
	}
	if c.token.enabled && c.token.token == "" {
		return errors.New("auth.token.token: must not be empty when auth.token.enabled is true")
	}
	if !c.oauth2.enabled {
		return nil
	}
	if u, err := url.Parse(c.oauth2.issuerURL); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return errors.New("auth.oauth2.issuer_url: must be the https:// URL of the authorization server when auth.oauth2.enabled is true")
	}
	if c.oauth2.privateKeyFile == "" {
		return errors.New("auth.oauth2.private_key_file: must name the file with the client's credentials when auth.oauth2.enabled is true")
	}
	return nil
}

// provider builds the client's authentication, nil for none. No error may get lost here: the client's own shorthands
// (pulsar.NewAuthenticationOAuth2 among them) drop it and return nil, which means "connect without credentials".
func (c authConfig) provider() (pulsar.Authentication, error) {
	switch {
	case c.token.enabled:
		p, err := auth.NewAuthenticationTokenWithParams(map[string]string{"token": c.token.token})
		if err != nil {
			return nil, fmt.Errorf("using auth.token: %w", err)
		}
		return p, nil
	case c.oauth2.enabled:
		// The client reads the file when it connects, and tells what is wrong with it in its log.
		key, err := oauth2.NewClientCredentialsProviderFromKeyFile(c.oauth2.privateKeyFile).GetClientCredentials()
		if err == nil && (key.ClientID == "" || key.ClientSecret == "") {
			err = errors.New("client_id or client_secret is missing in it")
		}
		if err != nil {
			return nil, fmt.Errorf("reading auth.oauth2.private_key_file: %w", err)
		}
		p, err := auth.NewAuthenticationOAuth2WithParams(map[string]string{
			auth.ConfigParamType:      auth.ConfigParamTypeClientCredentials,
			auth.ConfigParamIssuerURL: c.oauth2.issuerURL,
			auth.ConfigParamAudience:  c.oauth2.audience,
			auth.ConfigParamScope:     c.oauth2.scope,
			auth.ConfigParamKeyFile:   c.oauth2.privateKeyFile,
		})
		if err != nil {
			return nil, fmt.Errorf("using auth.oauth2: %w", err)
		}
		return p, nil
	default:
		return nil, nil
	}
}
