package output

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/apache/pulsar-client-go/oauth2"
	"github.com/apache/pulsar-client-go/pulsar"
	"github.com/apache/pulsar-client-go/pulsar/auth"
	"github.com/redpanda-data/benthos/v4/public/service"
)

// authConfig names how the client shows the broker who it is. At most one method is enabled.
type authConfig struct {
	token  tokenConfig
	oauth2 oauth2Config
}

type tokenConfig struct {
	enabled bool
	token   string
	file    string
}

type oauth2Config struct {
	enabled        bool
	audience       string
	issuerURL      string
	scope          string
	privateKeyFile string
}

const (
	bothTokensRule = `token and file are both set, set one of them`
	noTokenRule    = `must not be empty when auth.token.enabled is true, or else auth.token.file must name a file with the token`
)

func authField() *service.ConfigField {
	return service.NewObjectField(fieldAuth,
		service.NewObjectField("oauth2",
			service.NewBoolField("enabled").Description("Whether to ask an authorization server for a token, by the client credentials flow.").Default(false),
			service.NewStringField("audience").Description("The audience that the token is for. Some servers need none.").Default(""),
			service.NewStringField("issuer_url").Description("The URL of the authorization server.").Default(""),
			service.NewStringField("scope").Description("The scopes to ask for, separated by spaces. By default none.").Default(""),
			service.NewStringField("private_key_file").Description("The path of the file with the client's id and secret, as JSON; a `file://` or `data:` URL will do too.").Default("").Secret(),
		).
			Description("Parameters for OAuth 2.0 authentication.").
			LintRule(`root = match {
  !this.enabled.or(false) => [],
  this.issuer_url.or("").re_match("^https?://.+") == false => [ "auth.oauth2.issuer_url: must be the https:// URL of the authorization server when auth.oauth2.enabled is true" ],
  this.private_key_file.or("") == "" => [ "auth.oauth2.private_key_file: must name the file with the client's credentials when auth.oauth2.enabled is true" ],
  _ => [],
}`),
		service.NewObjectField("token",
			service.NewBoolField("enabled").Description("Whether to present the token.").Default(false),
			service.NewStringField("token").Description("The token, usually a JSON Web Token. Better `${PULSAR_TOKEN}` than the token itself.").Default("").Secret(),
			service.NewStringField("file").Description("The path of a file that holds the token, instead of `token`. It is read again whenever a connection is made or the broker asks for a new token, so a token that is replaced in the file is taken up without a restart. Surrounding white space is cut off.").Default("").Example("/var/run/secrets/pulsar/token"),
		).
			Description("Parameters for token authentication.").
			LintRule(`root = match {
  this.token.or("") != "" && this.file.or("") != "" => [ "auth.token: `+bothTokensRule+`" ],
  !this.enabled.or(false) => [],
  this.token.or("") == "" && this.file.or("") == "" => [ "auth.token.token: `+noTokenRule+`" ],
  _ => [],
}`),
	).
		Description("How to authenticate with the brokers. At most one method can be enabled; by default none is.").
		Optional().
		LintRule(`root = if this.oauth2.enabled.or(false) && this.token.enabled.or(false) { [ "auth: token and oauth2 are both enabled, enable one of them" ] }`)
}

// validate holds the rules that need no file and no network. The config linter has the same ones.
func (c authConfig) validate() error {
	if c.token.enabled && c.oauth2.enabled {
		return errors.New("auth: token and oauth2 are both enabled, enable one of them")
	}
	if c.token.token != "" && c.token.file != "" {
		return errors.New("auth.token: " + bothTokensRule)
	}
	if c.token.enabled && c.token.token == "" && c.token.file == "" {
		return errors.New("auth.token.token: " + noTokenRule)
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

// checkFile tells why a file cannot be read. As the client does, it takes file:// URLs, and data: URLs, which are no files.
func checkFile(path string) error {
	if strings.HasPrefix(path, "data:") {
		return nil
	}
	f, err := os.Open(strings.TrimPrefix(path, "file://"))
	if err != nil {
		return err
	}
	return f.Close()
}

// checkFiles tells of files that are named and can't be read.
func (c authConfig) checkFiles() error {
	if c.token.enabled && c.token.file != "" {
		if err := checkFile(c.token.file); err != nil {
			return fmt.Errorf("auth.token.file: %w", err)
		}
	}
	if c.oauth2.enabled {
		if err := checkFile(c.oauth2.privateKeyFile); err != nil {
			return fmt.Errorf("auth.oauth2.private_key_file: %w", err)
		}
	}
	return nil
}

// provider builds the client's authentication, nil for none. No error may get lost here: the client's own shorthands
// (pulsar.NewAuthenticationOAuth2 among them) drop it and return nil, which means "connect without credentials".
func (c authConfig) provider() (pulsar.Authentication, error) {
	switch {
	case c.token.enabled:
		return c.token.provider()
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

// provider builds the token's authentication.
func (c tokenConfig) provider() (pulsar.Authentication, error) {
	if c.file == "" {
		p, err := auth.NewAuthenticationTokenWithParams(map[string]string{"token": c.token})
		if err != nil {
			return nil, fmt.Errorf("using auth.token: %w", err)
		}
		return p, nil
	}
	// The client's own reader of a file cuts off blanks and line feeds, but not the carriage return of a file that was
	// written on Windows, and its errors do not say where the file is named.
	read := func() (string, error) {
		data, err := os.ReadFile(c.file)
		if err != nil {
			return "", fmt.Errorf("reading auth.token.file: %w", err)
		}
		token := strings.TrimSpace(string(data))
		if token == "" {
			return "", fmt.Errorf("reading auth.token.file: %s is empty", c.file)
		}
		return token, nil
	}
	// The client would read it when it connects, and try again for ever.
	if _, err := read(); err != nil {
		return nil, err
	}
	return auth.NewAuthenticationTokenFromSupplier(read), nil
}
