#!/bin/sh
# Once, when the cluster is made: a database for each service, owned by a role of its own that is nobody elsewhere.
set -eu
for service in billing quota notify; do
	password=$(cat "/run/secrets/${service}_password")
	psql --username "${POSTGRES_USER:-postgres}" --dbname postgres --set ON_ERROR_STOP=1 --set password="$password" <<-SQL
		CREATE ROLE $service LOGIN PASSWORD :'password';
		CREATE DATABASE tollway_$service OWNER $service;
		REVOKE CONNECT ON DATABASE tollway_$service FROM PUBLIC;
	SQL
done
