"""Settings of MLflow tracking."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import Field, field_validator

from components.settings import Settings


class TrackingSettings(Settings):
    """Where finished runs are logged."""

    mlflow_uri: str = Field(
        "", description="MLflow server to log finished runs to, such as https://mlflow.example.com; empty to log none"
    )
    experiment: str = Field("", description="MLflow experiment; if empty, project.name")
    log_model: bool = Field(False, description="upload the model to MLflow, instead of only its location")

    @field_validator("mlflow_uri")
    @classmethod
    def _check_address(cls, value: str) -> str:
        if not value:
            return value
        try:
            parts = urlsplit(value)
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("expected the address of an MLflow server, such as https://mlflow.example.com")
        if parts.username or parts.password:
            raise ValueError(
                "expected an address without user and password, because settings are saved in files; set the "
                "environment variables MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )
        return value
