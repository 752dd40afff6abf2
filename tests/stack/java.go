package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// minJava is what the class files of Pulsar 4.2 and DynamoDB Local 3 are built for.
	minJava = 17

	// requireVariable makes a missing service a failed test rather than a skipped one.
	requireVariable = "KINESIS_PULSAR_REQUIRE_SERVICES"
)

// ErrUnavailable is returned when a service cannot run on this machine, whatever is tried: the operating system is not
// supported, Java or Maven is missing or too old, or the jars are neither cached nor downloadable.
var ErrUnavailable = errors.New("service unavailable")

// Required reports whether KINESIS_PULSAR_REQUIRE_SERVICES asks that a missing service fails the tests.
func Required() bool {
	switch strings.ToLower(os.Getenv(requireVariable)) {
	case "", "0", "false", "no":
		return false
	}
	return true
}

// Unavailable returns why the services cannot be started here, and what to install; "" when nothing speaks against
// it. It starts and downloads nothing, so a first download may still fail afterwards.
func Unavailable() string {
	if err := available(pulsarJars, dynamoDBJars); err != nil {
		return err.Error()
	}
	return ""
}

// available checks what is needed to fetch and run the given sets of jars.
func available(sets ...*jarSet) error {
	if !supported {
		return fmt.Errorf("%w: not on %s: use Linux or macOS", ErrUnavailable, runtime.GOOS)
	}
	if _, err := findJava(); err != nil {
		return err
	}
	for _, set := range sets {
		dir, err := set.dir()
		if err != nil {
			return err
		}
		if _, err := os.Stat(dir); err == nil {
			continue // Maven is needed for the download only.
		}
		if _, err := findMaven(); err != nil {
			return err
		}
	}
	return nil
}

// javaRuntime is a Java executable and what it says about itself.
type javaRuntime struct {
	path  string
	major int    // 17, 21, …; 8 for "1.8.0_…"
	text  string // the whole answer to -version: names the exact build, on which a class archive depends
}

// Asking a Java executable for its version takes a tenth of a second: once per executable and process.
var javaVersions struct {
	sync.Mutex
	known map[string]javaRuntime
}

// findJava returns the Java to use: that of JAVA_HOME when it is set, else the one on the PATH. A JAVA_HOME that
// leads nowhere is an error, not a reason to look elsewhere: Maven would fail on it in a less obvious way.
func findJava() (javaRuntime, error) {
	var path string
	if home := os.Getenv("JAVA_HOME"); home != "" {
		path = filepath.Join(home, "bin", "java")
		if _, err := exec.LookPath(path); err != nil {
			return javaRuntime{}, fmt.Errorf("%w: JAVA_HOME is %s, which has no bin/java: unset it or set it to a Java %d or newer", ErrUnavailable, home, minJava)
		}
	} else {
		var err error
		if path, err = exec.LookPath("java"); err != nil {
			return javaRuntime{}, fmt.Errorf("%w: no java on the PATH and JAVA_HOME is not set: install Java %d or newer (Debian: apt-get install openjdk-17-jre-headless)", ErrUnavailable, minJava)
		}
	}
	javaVersions.Lock()
	defer javaVersions.Unlock()
	java, ok := javaVersions.known[path]
	if !ok {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		out, err := exec.CommandContext(ctx, path, "-version").CombinedOutput()
		if err != nil {
			return javaRuntime{}, fmt.Errorf("%w: %s -version fails (%v): %s", ErrUnavailable, path, err, strings.TrimSpace(string(out)))
		}
		java = javaRuntime{path: path, major: javaMajor(string(out)), text: string(out)}
		if javaVersions.known == nil {
			javaVersions.known = make(map[string]javaRuntime)
		}
		javaVersions.known[path] = java
	}
	if java.major < minJava {
		return javaRuntime{}, fmt.Errorf("%w: %s is Java %d: Java %d or newer is needed (set JAVA_HOME to one)", ErrUnavailable, path, java.major, minJava)
	}
	return java, nil
}

var javaVersionPattern = regexp.MustCompile(`version "(?:1\.)?(\d+)`)

// javaMajor reads the feature release out of the answer to `java -version`; 0 when there is none in it.
func javaMajor(text string) int {
	m := javaVersionPattern.FindStringSubmatch(text)
	if m == nil {
		return 0
	}
	major, err := strconv.Atoi(m[1])
	if err != nil {
		return 0
	}
	return major
}

// findMaven returns the mvn on the PATH.
func findMaven() (string, error) {
	path, err := exec.LookPath("mvn")
	if err != nil {
		return "", fmt.Errorf("%w: no mvn on the PATH: install Maven 3.6 or newer (Debian: apt-get install maven)", ErrUnavailable)
	}
	return path, nil
}
