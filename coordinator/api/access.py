"""Who may call what: every RPC of the contract, in one table. A test holds it to the descriptors."""

from enum import StrEnum
from typing import assert_never

from coordinator.domain.account import Role


class Access(StrEnum):
    ANYBODY = "anybody"  # the request itself carries what it needs
    ACCOUNT = "account"  # any account's token
    BUYER = "buyer"
    SELLER = "seller"
    OPERATOR = "operator"
    HOST = "host"  # an enrolled host's certificate, on the host port


ACCESS: dict[str, Access] = {
    "/usance.v1.MarketService/ListOffers": Access.BUYER,
    "/usance.v1.MarketService/QuoteJob": Access.BUYER,
    "/usance.v1.MarketService/SubmitJob": Access.BUYER,
    "/usance.v1.MarketService/GetJob": Access.BUYER,
    "/usance.v1.MarketService/ListJobs": Access.BUYER,
    "/usance.v1.MarketService/WatchJob": Access.BUYER,
    "/usance.v1.MarketService/ReadLogs": Access.BUYER,
    "/usance.v1.MarketService/CancelJob": Access.BUYER,
    "/usance.v1.MarketService/ExtendJob": Access.BUYER,
    "/usance.v1.MarketService/WatchOffers": Access.BUYER,
    "/usance.v1.MarketService/GetBill": Access.BUYER,
    "/usance.v1.AccountService/GetSelf": Access.ACCOUNT,
    "/usance.v1.AccountService/GetWallet": Access.ACCOUNT,
    "/usance.v1.TokenService/CreateOwnToken": Access.ACCOUNT,
    "/usance.v1.TokenService/ListTokens": Access.ACCOUNT,
    "/usance.v1.TokenService/RevokeToken": Access.ACCOUNT,
    "/usance.v1.BooksService/GetStatement": Access.ACCOUNT,
    "/usance.v1.BooksService/ListCosts": Access.ACCOUNT,
    "/usance.v1.BooksService/ListEarnings": Access.ACCOUNT,
    "/usance.v1.BooksService/GetSpendingCap": Access.ACCOUNT,
    "/usance.v1.BooksService/SetSpendingCap": Access.ACCOUNT,
    "/usance.v1.BooksService/ListPrices": Access.ACCOUNT,
    "/usance.v1.OperationsService/Withdraw": Access.OPERATOR,
    "/usance.v1.OperationsService/RefundJob": Access.OPERATOR,
    "/usance.v1.OperationsService/ListAllHosts": Access.OPERATOR,
    "/usance.v1.OperationsService/ListGpuClaims": Access.OPERATOR,
    "/usance.v1.OperationsService/ReleaseGpu": Access.OPERATOR,
    "/usance.v1.OperationsService/GetHealth": Access.OPERATOR,
    "/usance.v1.SellerService/CreateEnrolmentToken": Access.SELLER,
    "/usance.v1.SellerService/ListHosts": Access.SELLER,
    "/usance.v1.SellerService/PauseHost": Access.SELLER,
    "/usance.v1.SellerService/ResumeHost": Access.SELLER,
    "/usance.v1.SellerService/ReclaimHost": Access.SELLER,
    "/usance.v1.AdminService/CreateAccount": Access.OPERATOR,
    "/usance.v1.AdminService/ListAccounts": Access.OPERATOR,
    "/usance.v1.AdminService/CreateToken": Access.OPERATOR,
    "/usance.v1.AdminService/Deposit": Access.OPERATOR,
    "/usance.v1.AdminService/GetTrialBalance": Access.OPERATOR,
    "/usance.v1.AdminService/QuarantineHost": Access.OPERATOR,
    "/usance.v1.AdminService/UnquarantineHost": Access.OPERATOR,
    "/usance.v1.AdminService/RevokeHost": Access.OPERATOR,
    "/usance.v1.AdminService/RunAudit": Access.OPERATOR,
    "/usance.v1.EnrolmentService/Enroll": Access.ANYBODY,
    "/usance.v1.HostService/RenewCertificate": Access.HOST,
    "/usance.v1.HostService/Synchronize": Access.HOST,
    "/usance.v1.HostService/GetStanding": Access.HOST,
    "/usance.v1.HostService/SetHold": Access.HOST,
    # gRPC's own: whether we serve, and what the contract is.
    "/grpc.health.v1.Health/Check": Access.ANYBODY,
    "/grpc.health.v1.Health/Watch": Access.ANYBODY,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Access.ANYBODY,
}


def allows(access: Access, roles: frozenset[Role]) -> bool:
    """May an account with these roles call it?"""
    match access:
        case Access.ANYBODY | Access.ACCOUNT:
            return True
        case Access.BUYER:
            return Role.BUYER in roles
        case Access.SELLER:
            return Role.SELLER in roles
        case Access.OPERATOR:
            return Role.OPERATOR in roles
        case Access.HOST:
            return False
        case _ as never:
            assert_never(never)
