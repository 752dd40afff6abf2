// Package credentials turns the documented credential plugins of the Java connector, a class name and a JSON text, into
// AWS SDK credential providers.
//
// Invariants:
//   - Parse is a pure function: it reads neither the environment nor the network, so a config can be checked anywhere.
//   - No error and no printed value ever holds a key, a token or the text they came from (I12).
//   - A plugin that cannot exist outside a JVM is refused by name; nothing falls back to other credentials.
package credentials

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// The class names that stand for the two plugins the Java connector ships. Its documentation still shows the io.kinesis
// package, which its code left in 2020, so both spellings are in use.
const (
	DefaultChainClass    = "org.apache.pulsar.io.aws.AwsDefaultProviderChainPlugin"
	AssumeRoleClass      = "org.apache.pulsar.io.aws.STSAssumeRoleProviderPlugin"
	oldDefaultChainClass = "org.apache.pulsar.io.kinesis.AwsDefaultProviderChainPlugin"
	oldAssumeRoleClass   = "org.apache.pulsar.io.kinesis.STSAssumeRoleProviderPlugin"
)

var (
	// ErrUnknownPlugin is returned when awsCredentialPluginName names a class that has no counterpart here.
	ErrUnknownPlugin = errors.New("unknown credential plugin")
	// ErrMissingKeys is returned when static credentials lack one of their two keys. The text is the Java connector's.
	//lint:ignore ST1005 the Java connector's text, which people search for
	ErrMissingKeys = errors.New("Default accessKey and secretKey must be present into json-map if AwsCredentialProviderPlugin not provided")
	// ErrParam is returned when awsCredentialPluginParam does not hold what its plugin needs.
	ErrParam = errors.New("invalid awsCredentialPluginParam")
)

// Secret is a text that prints as nothing but its presence, whatever the verb: a Config that holds one can be logged.
type Secret string

// hidden is what every formatting of a non-empty Secret yields.
const hidden = "[secret]"

// String hides the text.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return hidden
}

// Format hides the text from every verb, %x, %q and %#v included, which would otherwise bypass String.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalText hides the text from encoders.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Reveal returns the text itself.
func (s Secret) Reveal() string { return string(s) }

// Kind says where credentials come from.
type Kind int

const (
	// DefaultChain is the SDK's own search: environment, web identity, shared files, container, instance.
	DefaultChain Kind = iota
	// Static is a pair of keys written in the config, with an optional session token.
	Static
	// AssumeRole is a role assumed through STS with the credentials of the default chain.
	AssumeRole
)

// Plugin is a parsed pair of awsCredentialPluginName and awsCredentialPluginParam. The zero value is the default chain.
type Plugin struct {
	Kind Kind

	// AccessKey, SecretKey and SessionToken belong to Static.
	AccessKey    string
	SecretKey    Secret
	SessionToken Secret

	// RoleARN, RoleSessionName, ExternalID and Duration belong to AssumeRole; a zero Duration is STS' default of one hour.
	RoleARN         string
	RoleSessionName string
	ExternalID      string
	Duration        time.Duration
}

// String names the kind without a secret, for a log line.
func (p Plugin) String() string {
	switch p.Kind {
	case Static:
		return "static keys"
	case AssumeRole:
		return "assumed role " + p.RoleARN
	}
	return "the AWS SDK's default chain"
}

// Format keeps the access key id out of %+v as well: it is no secret by itself, but it has no place in a log either.
func (p Plugin) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, p.String()) }

// Parse reads what the two config fields say.
//
//   - No name and no param: the default chain. The Java connector has no such form; with it, one would name the plugin.
//   - No name: static keys, {"accessKey": …, "secretKey": …} with an optional "sessionToken".
//   - The default chain's class: the param is ignored, as documented.
//   - The assume-role class: {"roleArn": …, "roleSessionName": …} with optional "externalId" and "durationSeconds".
//
// The param must be one JSON object. Gson, which the Java connector reads it with, also takes single quotes and bare
// words; that is refused here, because a guess at where a key ends is a failed login an hour later.
// It returns ErrUnknownPlugin, ErrMissingKeys or ErrParam, with what to write instead.
func Parse(name string, param Secret) (Plugin, error) {
	kind, err := KindOf(name)
	if err != nil {
		return Plugin{}, err
	}
	text := strings.TrimSpace(param.Reveal())
	switch {
	case kind == DefaultChain, kind == Static && text == "":
		return Plugin{Kind: DefaultChain}, nil
	case kind == Static:
		return parseStatic(text)
	}
	p, err := parseAssumeRole(text)
	if err != nil {
		return Plugin{}, fmt.Errorf("invalid authplugin name %s, failed to init: %w", strings.TrimSpace(name), err)
	}
	return p, nil
}

// Check is Parse for those who want only its verdict.
func Check(name string, param Secret) error {
	_, err := Parse(name, param)
	return err
}

// className is what a Java class of a package is called.
var className = regexp.MustCompile(`^[A-Za-z_]\w*(\.[A-Za-z_$][\w$]*)+$`)

// KindOf tells which plugin a class name stands for; no name stands for Static.
func KindOf(name string) (Kind, error) {
	switch name = strings.TrimSpace(name); name {
	case "":
		return Static, nil
	case DefaultChainClass, oldDefaultChainClass:
		return DefaultChain, nil
	case AssumeRoleClass, oldAssumeRoleClass:
		return AssumeRole, nil
	}
	if !className.MatchString(name) { // it may be the other field's value, and hold a key
		return 0, fmt.Errorf("invalid authplugin name, failed to init: %w: it is not the name of a class; what is given to a plugin, such as keys, belongs into awsCredentialPluginParam; write %s or %s here, or leave it out",
			ErrUnknownPlugin, DefaultChainClass, AssumeRoleClass)
	}
	return 0, fmt.Errorf("invalid authplugin name %.200s, failed to init: %w: Java classes cannot be loaded here; write %s or %s, "+
		`or leave awsCredentialPluginName out and give static keys as {"accessKey":"…","secretKey":"…"} in awsCredentialPluginParam`,
		name, ErrUnknownPlugin, DefaultChainClass, AssumeRoleClass)
}

const (
	staticShape     = `{"accessKey":"…","secretKey":"…"}, with an optional "sessionToken"`
	assumeRoleShape = `{"roleArn":"arn:aws:iam::123456789012:role/…","roleSessionName":"…"}, with optional "externalId" and "durationSeconds"`
)

func parseStatic(text string) (Plugin, error) {
	m, err := parseObject(text, staticShape, "accessKey", "secretKey", "sessionToken")
	if err != nil {
		return Plugin{}, err
	}
	if m["accessKey"] == "" || m["secretKey"] == "" {
		return Plugin{}, fmt.Errorf("%w: awsCredentialPluginParam must be %s", ErrMissingKeys, staticShape)
	}
	return Plugin{Kind: Static, AccessKey: m["accessKey"], SecretKey: Secret(m["secretKey"]), SessionToken: Secret(m["sessionToken"])}, nil
}

var (
	roleARN     = regexp.MustCompile(`^arn:[a-z0-9-]+:iam::[0-9]{12}:role/[!-~]{1,576}$`)
	sessionName = regexp.MustCompile(`^[A-Za-z0-9_+=,.@-]{2,64}$`)
	externalID  = regexp.MustCompile(`^[A-Za-z0-9_+=,.@:/-]{2,}$`) // at most 1224, which is beyond regexp's repeat counts
)

func parseAssumeRole(text string) (Plugin, error) {
	if text == "" {
		return Plugin{}, fmt.Errorf("%w: it is empty; write %s", ErrParam, assumeRoleShape)
	}
	m, err := parseObject(text, assumeRoleShape, "roleArn", "roleSessionName", "externalId", "durationSeconds")
	if err != nil {
		return Plugin{}, err
	}
	p := Plugin{Kind: AssumeRole, RoleARN: m["roleArn"], RoleSessionName: m["roleSessionName"], ExternalID: m["externalId"]}
	// STS answers all of these too, but only at the first call, and with a text about its own parameters.
	switch {
	case !roleARN.MatchString(p.RoleARN):
		return Plugin{}, fmt.Errorf("%w: roleArn must be the ARN of a role, arn:aws:iam::123456789012:role/NAME", ErrParam)
	case !sessionName.MatchString(p.RoleSessionName):
		return Plugin{}, fmt.Errorf("%w: roleSessionName must be 2 to 64 of the characters a-z A-Z 0-9 _ + = , . @ -, for example pulsar-kinesis", ErrParam)
	case p.ExternalID != "" && (len(p.ExternalID) > 1224 || !externalID.MatchString(p.ExternalID)):
		return Plugin{}, fmt.Errorf("%w: externalId must be 2 to 1224 of the characters a-z A-Z 0-9 _ + = , . @ : / -", ErrParam)
	}
	if d, ok := m["durationSeconds"]; ok {
		n, err := strconv.Atoi(d)
		if err != nil || n < 900 || n > 43200 {
			return Plugin{}, fmt.Errorf("%w: durationSeconds must be a whole number from 900 to 43200", ErrParam)
		}
		p.Duration = time.Duration(n) * time.Second
	}
	return p, nil
}

// parseObject reads one flat JSON object of texts, with numbers and booleans kept as they are written, as Gson does.
// It refuses what Gson lets pass: a key it does not know (a typo would leave a field empty without a word) and null.
// Its errors come from here alone: those of encoding/json quote the text.
func parseObject(text, shape string, known ...string) (map[string]string, error) {
	bad := func(what string) error { return fmt.Errorf("%w: %s; write a JSON object %s", ErrParam, what, shape) }
	dec := json.NewDecoder(bytes.NewReader([]byte(text)))
	dec.UseNumber()
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		if strings.HasPrefix(text, "{") {
			return nil, bad("it is not valid JSON, where names and texts stand in double quotes")
		}
		return nil, bad("it is not a JSON object")
	}
	m := map[string]string{}
	for dec.More() {
		t, err := dec.Token()
		key, ok := t.(string)
		if err != nil || !ok {
			return nil, bad("it is not valid JSON, where names and texts stand in double quotes")
		}
		if name, ok := match(key, known); !ok {
			if name != "" {
				return nil, bad("it holds a name that should read " + name)
			}
			return nil, bad("it holds a name that is not known") // not quoted: it may be a key that lost its name
		}
		if _, ok := m[key]; ok {
			return nil, bad(key + " stands in it twice")
		}
		if t, err = dec.Token(); err != nil {
			return nil, bad("it is not valid JSON after " + key)
		}
		switch v := t.(type) {
		case string:
			m[key] = v
		case json.Number:
			m[key] = v.String()
		case bool:
			m[key] = strconv.FormatBool(v)
		default:
			return nil, bad(key + " is not a text")
		}
	}
	if _, err := dec.Token(); err != nil {
		return nil, bad("it is not valid JSON: its end is missing")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, bad("there is text after its end")
	}
	return m, nil
}

// match tells whether key is known; if not, it names the known key that was probably meant, if any.
func match(key string, known []string) (string, bool) {
	fold := func(s string) string {
		return strings.NewReplacer("_", "", "-", "", " ", "").Replace(strings.ToLower(s))
	}
	alias := map[string]string{"accesskeyid": "accessKey", "awsaccesskeyid": "accessKey", "secretaccesskey": "secretKey",
		"awssecretaccesskey": "secretKey", "awssessiontoken": "sessionToken", "token": "sessionToken", "duration": "durationSeconds"}
	meant := ""
	for _, k := range known {
		if k == key {
			return k, true
		}
		if fold(k) == fold(key) || alias[fold(key)] == k {
			meant = k
		}
	}
	return meant, false
}
