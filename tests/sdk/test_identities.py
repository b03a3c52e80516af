"""Who is who: personal access tokens, OAuth for machines, and what is refused."""

from __future__ import annotations

import base64
import json
import urllib.parse
import urllib.request
from urllib.error import HTTPError

from databricks.sdk import WorkspaceClient
from databricks.sdk.config import Config
from databricks.sdk.errors import Unauthenticated

from workspace import Case


class Identities(Case):
    def nobody(self, **settings: object) -> WorkspaceClient:
        """A client with other credentials, whatever the profiles say."""
        return WorkspaceClient(host=self.workspace().host, config_file="/dev/null", **settings)

    def token(self, authorization: str | None = None, **form: str) -> tuple[int, dict[str, object]]:
        """Asks the token endpoint as any OAuth client would."""
        data = urllib.parse.urlencode(form).encode()
        request = urllib.request.Request(f"{self.workspace().host}/oidc/v1/token", data=data)
        if authorization:
            request.add_header("Authorization", authorization)
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, json.load(answer)
        except HTTPError as refused:
            with refused:
                return refused.code, json.load(refused)

    def test_a_service_principal_logs_in_with_its_secret_and_is_known_by_its_application_id(
        self,
    ) -> None:
        self.assertEqual(self.w.config.auth_type, "oauth-m2m")
        me = self.w.current_user.me()
        self.assertEqual(me.user_name, self.w.config.client_id)
        self.assertTrue(me.active)
        token = self.w.config.oauth_token()
        self.assertEqual((token.token_type, len(token.access_token.split("."))), ("Bearer", 3))
        self.assertEqual(self.w.get_workspace_id(), int(self.w.config.workspace_id or 0))

    def test_a_user_is_known_by_a_personal_access_token(self) -> None:
        self.assertEqual(self.user.config.auth_type, "pat")
        me = self.user.current_user.me()
        self.assertEqual((me.user_name, me.emails[0].value), ("developer@lakeforge.test",) * 2)

    def test_discovery_leads_to_the_token_endpoint(self) -> None:
        config = Config(host=self.workspace().host, token="any", config_file="/dev/null")
        self.assertEqual(
            config.oidc_endpoints.token_endpoint, f"{self.workspace().host}/oidc/v1/token"
        )
        with urllib.request.urlopen(
            f"{self.workspace().host}/.well-known/databricks-config"
        ) as answer:
            document = json.load(answer)
        self.assertEqual(document["oidc_endpoint"], f"{self.workspace().host}/oidc")
        self.assertEqual(int(document["workspace_id"]), self.w.get_workspace_id())

    def test_a_token_is_granted_for_the_right_secret_in_the_header_or_the_form(self) -> None:
        id, secret = self.w.config.client_id or "", self.w.config.client_secret or ""
        basic = "Basic " + base64.b64encode(f"{id}:{secret}".encode()).decode()
        for status, answer in (
            self.token(basic, grant_type="client_credentials", scope="all-apis"),
            self.token(grant_type="client_credentials", client_id=id, client_secret=secret),
        ):
            self.assertEqual(
                (status, answer["token_type"], answer["expires_in"]), (200, "Bearer", 3600)
            )
            client = self.nobody(token=answer["access_token"])
            self.assertEqual(client.current_user.me().user_name, id)
        for form, error, code in [
            (
                {"grant_type": "client_credentials", "client_id": id, "client_secret": "wrong"},
                "invalid_client",
                401,
            ),
            ({"grant_type": "client_credentials"}, "invalid_client", 401),
            ({"grant_type": "password"}, "unsupported_grant_type", 400),
        ]:
            with self.subTest(error, **form):
                status, answer = self.token(**form)
                self.assertEqual((status, answer["error"]), (code, error))
                self.assertTrue(answer["error_description"])

    def test_what_is_no_credential_of_this_workspace_is_refused(self) -> None:
        with self.refused(Unauthenticated, "UNAUTHENTICATED", "^Invalid access token"):
            self.nobody(token="dapi" + "0" * 32).current_user.me()
        with self.refused(Unauthenticated, "UNAUTHENTICATED", "^Invalid access token"):
            self.nobody(
                token=self.w.config.oauth_token().access_token[:-4] + "AAAA"
            ).current_user.me()
        project = self.project()
        database = self.w.postgres.generate_database_credential(
            f"{project}/branches/production/endpoints/primary"
        )
        with self.refused(Unauthenticated, "UNAUTHENTICATED", "^Invalid access token"):
            self.nobody(token=database.token).current_user.me()
        with self.assertRaisesRegex(Exception, "invalid_client"):
            self.nobody(client_id=self.w.config.client_id, client_secret="wrong").current_user.me()
        with self.assertRaises(HTTPError) as refused:
            urllib.request.urlopen(f"{self.workspace().host}/api/2.0/postgres/projects")
        with refused.exception:
            self.assertEqual(refused.exception.code, 401)
            self.assertEqual(json.load(refused.exception)["error_code"], "UNAUTHENTICATED")
