package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"leavebroker/config"
)

func newConfig() *cobra.Command {
	return parent(&cobra.Command{Use: "config", Short: "Check the daemon's configuration"}, newConfigCheck())
}

// loadConfig reads and judges the configuration of a file, or of none, and of
// the environment. Its error ends the command.
func loadConfig(path string) (*config.Config, error) {
	cfg, err := config.Load(path, os.Environ())
	if file := (*fs.PathError)(nil); errors.As(err, &file) {
		return nil, unreadable(err)
	}
	if err != nil {
		return nil, &exitError{code: exitConfig, err: err}
	}
	for i := range cfg.Tenants {
		if _, err := tenantRegistry(&cfg.Tenants[i]); err != nil {
			return nil, &exitError{code: exitConfig, err: fmt.Errorf("tenants[%d]: %w", i, err)}
		}
	}
	return cfg, nil
}

func newConfigCheck() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "check [--config FILE]",
		Short: "Say whether a configuration is valid, without starting anything",
		Long: `Reads the configuration as serve would: the file if there is one, and LEAVEBROKER_
variables of the environment over it. Every problem is printed on standard
error, with its file and line, or else the first one between a tenant's numbers.
Contexts, keys, sockets and stores are not
opened.

Exit codes: 0 valid, 78 not valid, 2 the file cannot be read.`,
		Example: "  leavebroker config check --config /etc/leavebroker/leavebroker.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(path)
			if err != nil {
				return err
			}
			tenants := "1 tenant"
			if n := len(cfg.Tenants); n != 1 {
				tenants = fmt.Sprintf("%d tenants", n)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "ok: %s, state in %s\n", tenants, cfg.StateDir)
			return err
		},
	}
	cmd.Flags().StringVar(&path, "config", "", "configuration `FILE`; without it, the defaults and the environment")
	return cmd
}
