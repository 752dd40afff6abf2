package credentials

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

const role = "arn:aws:iam::123456789012:role/reader"

func TestParse(t *testing.T) {
	for _, c := range []struct {
		name, class, param string
		want               Plugin
	}{
		{"nothing at all is the default chain", "", "", Plugin{}},
		{"blanks are nothing", "  ", " \n", Plugin{}},
		{"static keys", "", `{"accessKey":"a","secretKey":"b"}`, Plugin{Kind: Static, AccessKey: "a", SecretKey: "b"}},
		{"static keys with a session token", "", ` { "accessKey" : "a" , "secretKey" : "b" , "sessionToken" : "c" } `, Plugin{Kind: Static, AccessKey: "a", SecretKey: "b", SessionToken: "c"}},
		{"numbers are their digits", "", `{"accessKey":1.50,"secretKey":true}`, Plugin{Kind: Static, AccessKey: "1.50", SecretKey: "true"}},
		{"escapes are JSON's", "", `{"accessKey":"\u0041\/","secretKey":"\"\\"}`, Plugin{Kind: Static, AccessKey: "A/", SecretKey: `"\`}},
		{"the default chain ignores its param", DefaultChainClass, `nonsense`, Plugin{}},
		{"the default chain by its old name", oldDefaultChainClass, "", Plugin{}},
		{"a role", AssumeRoleClass, `{"roleArn":"` + role + `","roleSessionName":"s-1"}`, Plugin{Kind: AssumeRole, RoleARN: role, RoleSessionName: "s-1"}},
		{"a role by the old name", oldAssumeRoleClass, `{"roleArn":"` + role + `","roleSessionName":"s-1"}`, Plugin{Kind: AssumeRole, RoleARN: role, RoleSessionName: "s-1"}},
		{"a role with everything", AssumeRoleClass, `{"roleArn":"arn:aws-us-gov:iam::123456789012:role/a/b","roleSessionName":"s-1","externalId":"x:1","durationSeconds":"900"}`,
			Plugin{Kind: AssumeRole, RoleARN: "arn:aws-us-gov:iam::123456789012:role/a/b", RoleSessionName: "s-1", ExternalID: "x:1", Duration: 15 * time.Minute}},
	} {
		if got, err := Parse(c.class, Secret(c.param)); err != nil || got != c.want {
			t.Errorf("%s: got %#v, %v", c.name, got.Kind, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct {
		name, class, param string
		is                 error
		says               string
	}{
		{"the two fields swapped", `{"accessKey":"AK","secretKey":"topsecret"}`, "", ErrUnknownPlugin, "not the name of a class"},
		{"a class of somebody else", "com.example.Plugin", "", ErrUnknownPlugin, "invalid authplugin name com.example.Plugin, failed to init"},
		{"a class in the wrong case", strings.ToLower(DefaultChainClass), "", ErrUnknownPlugin, DefaultChainClass},
		{"one key alone", "", `{"accessKey":"a"}`, ErrMissingKeys, "Default accessKey and secretKey must be present into json-map if AwsCredentialProviderPlugin not provided"},
		{"an empty key", "", `{"accessKey":"a","secretKey":""}`, ErrMissingKeys, "secretKey"},
		{"an empty object", "", `{}`, ErrMissingKeys, "secretKey"},
		{"null", "", `null`, ErrParam, "is not a JSON object"},
		{"a list", "", `["accessKey"]`, ErrParam, "is not a JSON object"},
		{"single quotes", "", `{'accessKey':'a','secretKey':'b'}`, ErrParam, "double quotes"},
		{"bare words", "", `{accessKey:a,secretKey:b}`, ErrParam, "double quotes"},
		{"a key twice", "", `{"accessKey":"a","accessKey":"b","secretKey":"c"}`, ErrParam, "accessKey stands in it twice"},
		{"text after the end", "", `{"accessKey":"a","secretKey":"b"} x`, ErrParam, "text after its end"},
		{"no end", "", `{"accessKey":"a","secretKey":"b"`, ErrParam, "its end is missing"},
		{"a nested object", "", `{"accessKey":{"a":"b"},"secretKey":"b"}`, ErrParam, "accessKey is not a text"},
		{"null for a key", "", `{"accessKey":null,"secretKey":"b"}`, ErrParam, "accessKey is not a text"},
		{"the SDK's names", "", `{"aws_access_key_id":"a","aws_secret_access_key":"b"}`, ErrParam, "should read accessKey"},
		{"a name in the wrong case", "", `{"accessKey":"a","secretKey":"b","sessiontoken":"c"}`, ErrParam, "should read sessionToken"},
		{"a name that is not known", "", `{"accessKey":"a","secretKey":"b","region":"c"}`, ErrParam, "a name that is not known"},
		{"a role without a param", AssumeRoleClass, "", ErrParam, "invalid authplugin name " + AssumeRoleClass + ", failed to init"},
		{"a role without an ARN", AssumeRoleClass, `{"roleSessionName":"s-1"}`, ErrParam, "roleArn"},
		{"a role with a user's ARN", AssumeRoleClass, `{"roleArn":"arn:aws:iam::123456789012:user/u","roleSessionName":"s-1"}`, ErrParam, "roleArn"},
		{"a role without a session name", AssumeRoleClass, `{"roleArn":"` + role + `"}`, ErrParam, "roleSessionName"},
		{"a session name with spaces", AssumeRoleClass, `{"roleArn":"` + role + `","roleSessionName":"my session"}`, ErrParam, "roleSessionName"},
		{"an external id of one character", AssumeRoleClass, `{"roleArn":"` + role + `","roleSessionName":"s-1","externalId":"x"}`, ErrParam, "externalId"},
		{"too short a duration", AssumeRoleClass, `{"roleArn":"` + role + `","roleSessionName":"s-1","durationSeconds":899}`, ErrParam, "durationSeconds"},
		{"too long a duration", AssumeRoleClass, `{"roleArn":"` + role + `","roleSessionName":"s-1","durationSeconds":43201}`, ErrParam, "durationSeconds"},
		{"half a second", AssumeRoleClass, `{"roleArn":"` + role + `","roleSessionName":"s-1","durationSeconds":900.5}`, ErrParam, "durationSeconds"},
	} {
		_, err := Parse(c.class, Secret(c.param))
		if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q saying %q", c.name, err, c.is, c.says)
		}
		if strings.Contains(err.Error(), "topsecret") {
			t.Errorf("%s: a key is told: %v", c.name, err)
		}
		if check := Check(c.class, Secret(c.param)); fmt.Sprint(check) != fmt.Sprint(err) {
			t.Errorf("%s: Check says %v, Parse %v", c.name, check, err)
		}
	}
}

func TestSecretsPrintAsNothing(t *testing.T) {
	const text = "wJalrXUtnFEMI"
	p := Plugin{Kind: Static, AccessKey: text, SecretKey: text, SessionToken: text}
	var out strings.Builder
	for _, v := range []any{Secret(text), p, &p, []Secret{text}, Options{PluginParam: text}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t"} {
			fmt.Fprintf(&out, verb, v)
		}
	}
	encoded, err := json.Marshal(struct{ S Secret }{text})
	if err != nil || string(encoded) != `{"S":"[secret]"}` {
		t.Errorf("encoded as %s, %v", encoded, err)
	}
	if s := out.String(); strings.Contains(s, text) || strings.Contains(strings.ToLower(s), fmt.Sprintf("%x", text)) {
		t.Errorf("printed: %s", s)
	}
	if Secret(text).Reveal() != text || Secret("").String() != "" {
		t.Error("a secret must still be readable on purpose, and an empty one look empty")
	}
}

// Whatever surrounds a secret, the error about it must not hold it.
func FuzzErrorsHoldNoSecret(f *testing.F) {
	const secret = "S3cr3tM4rk3r"
	for _, s := range [][2]string{{"", ""}, {`{"accessKey":"`, `"}`}, {`{"`, `":"x"}`}, {`{"accessKey":`, `}`}, {`{"accessKey":"a","secretKey":"b"}`, ""}, {`{"roleArn":"`, `"}`}, {`{"roleArn":"` + role + `","roleSessionName":"`, ` "}`}, {`{"durationSeconds":"`, `"}`}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, before, after string) {
		for _, class := range []string{"", AssumeRoleClass, DefaultChainClass} {
			p, err := Parse(class, Secret(before+secret+after))
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("%q: %v", before+secret+after, err)
			}
			if err == nil && p.Kind == Static && (p.AccessKey == "" || p.SecretKey == "") {
				t.Errorf("%q is accepted without keys", before+secret+after)
			}
		}
	})
}
